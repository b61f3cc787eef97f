"""What agents have made for them and end with a lease: credentials, by the one path of every request."""

from __future__ import annotations

from actors.sessions.ports import Credentials, Peer
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest
from serve.agent_gateway.requests import ask, checked_path

_ISSUING = frozenset({"database.creds", "aws.creds", "aws.sts"})


async def issue(core: Core, peer: Peer, path: str, application: str | None) -> Credentials:
    """Have credentials made for an agent.

    Raises:
        InvalidPath: nothing is made at this path; written down.
        SecretHubError: refused or failed.
    """
    canonical = await checked_path(
        core,
        peer,
        path,
        application,
        theirs=_ISSUING,
        operation="agents.issue",
        why_not="no credentials are made there",
    )
    answer = await ask(core, peer, "read", canonical, application=application)
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
    answer = await ask(core, peer, "write", "sys/leases/renew", body={"lease_id": lease_id})
    return answer.lease_duration


async def revoke_lease(core: Core, peer: Peer, lease_id: str) -> None:
    """End a lease of an agent's.

    Raises:
        InvalidRequest: it is not the agent's.
        SecretHubError: refused or failed.
    """
    await ask(core, peer, "write", "sys/leases/revoke", body={"lease_id": lease_id})
