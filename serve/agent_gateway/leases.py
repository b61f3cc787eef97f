"""What agents have made for them and end with a lease: credentials, by the one path of every request."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.sessions.ports import Credentials, Peer
from secrethub.engines.engine import Answer, Method
from secrethub.engines.flat import flat_view
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidPath, InvalidRequest, NotFound
from secrethub.ids import new_uuid
from secrethub.operations.call import AgentCertificate, Call
from secrethub.operations.note import note
from secrethub.operations.perform import perform
from secrethub.wire.canonical_path import check_path

ISSUING = frozenset({"database.creds", "aws.creds", "aws.sts"})
"""Operations that agents may call by path, whatever else their policies allow."""


async def issue(core: Core, peer: Peer, path: str, application: str | None) -> Credentials:
    """Have credentials made for an agent.

    Raises:
        InvalidPath: nothing is made at this path; written down.
        SecretHubError: refused or failed.
    """
    canonical = check_path(path)
    if not await _makes_credentials(core, canonical):
        await note(
            core,
            operation="agents.issue",
            path=canonical,
            actor=f"agent:{peer.agent_id}",
            outcome="refused",
            reason="no credentials are made there",
            client=peer.address,
            door="agent",
            request_id=new_uuid(),
            detail=None if application is None else {"application": application},
        )
        raise InvalidPath("no credentials are made there")
    answer = await _perform(core, peer, "read", canonical, application=application)
    if not answer.lease_id or answer.data is None:
        raise InvalidRequest("what is made there has no lease")
    return Credentials(
        data=answer.data,
        lease_id=answer.lease_id,
        lease_duration=answer.lease_duration,
        renewable=answer.renewable,
    )


async def renew_lease(core: Core, peer: Peer, lease_id: str) -> int:
    """Let a lease of an agent's last longer; return the seconds from now.

    Raises:
        InvalidRequest: it is not the agent's, not renewable, or has reached its maximum.
        SecretHubError: refused or failed.
    """
    answer = await _perform(core, peer, "write", "sys/leases/renew", {"lease_id": lease_id})
    return answer.lease_duration


async def revoke_lease(core: Core, peer: Peer, lease_id: str) -> None:
    """End a lease of an agent's.

    Raises:
        InvalidRequest: it is not the agent's.
        SecretHubError: refused or failed.
    """
    await _perform(core, peer, "write", "sys/leases/revoke", {"lease_id": lease_id})


async def _makes_credentials(core: Core, path: str) -> bool:
    """Tell whether reading ``path`` makes credentials and does nothing else, whoever asks."""
    try:
        route = await core.mounts.route("read", flat_view("read", path))
    except NotFound:
        return False
    return route.operation is not None and route.operation.name in ISSUING


async def _perform(
    core: Core,
    peer: Peer,
    method: Method,
    path: str,
    body: dict[str, Any] | None = None,
    application: str | None = None,
) -> Answer:
    return await perform(
        core,
        Call(
            method=method,
            path=path,
            body=b"" if body is None else msgspec.json.encode(body),
            credential=AgentCertificate(
                agent_id=peer.agent_id, serial=peer.serial, application=application or ""
            ),
            client_address=peer.address,
            door="agent",
            request_id=new_uuid(),
        ),
    )
