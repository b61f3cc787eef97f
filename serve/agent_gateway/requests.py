"""What agents ask for by path: by the one path of every request, and of operations that are theirs to ask."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from actors.sessions.ports import Peer
from secrethub.engines.engine import Answer, Method
from secrethub.engines.flat import flat_view
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidPath, NotFound
from secrethub.ids import new_uuid
from secrethub.operations.call import AgentCertificate, Call
from secrethub.operations.note import note
from secrethub.operations.perform import perform
from secrethub.wire.canonical_path import check_path

_DOOR = "agent"


async def ask(
    core: Core,
    peer: Peer,
    method: Method,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    application: str | None = None,
) -> Answer:
    """Carry out a request of an agent's, for an application on its host if one is named.

    Raises:
        SecretHubError: refused or failed.
    """
    return await perform(
        core,
        Call(
            method=method,
            path=path,
            query=query or {},
            body=b"" if body is None else msgspec.json.encode(body),
            credential=AgentCertificate(
                agent_id=peer.agent_id, serial=peer.serial, application=application or ""
            ),
            client_address=peer.address,
            door=_DOOR,
            request_id=new_uuid(),
        ),
    )


async def checked_path(
    core: Core,
    peer: Peer,
    path: str,
    application: str | None,
    *,
    theirs: Collection[str],
    operation: str,
    why_not: str,
) -> str:
    """Return a path in canonical form if reading it is what agents may ask for, whatever policies allow.

    Args:
        core: this process.
        peer: the agent.
        path: as it came.
        application: for which it asks, or None.
        theirs: the operations that reading it may be.
        operation: what the ledger calls it otherwise.
        why_not: what the agent and the ledger are told then.

    Raises:
        InvalidPath: it is something else; written down.
    """
    canonical = check_path(path)
    with contextlib.suppress(NotFound):
        route = await core.mounts.route("read", flat_view("read", canonical))
        if route.operation is not None and route.operation.name in theirs:
            return canonical
    await note(
        core,
        operation=operation,
        path=canonical,
        actor=f"agent:{peer.agent_id}",
        outcome="refused",
        reason=why_not,
        client=peer.address,
        door=_DOOR,
        request_id=new_uuid(),
        detail=None if application is None else {"application": application},
    )
    raise InvalidPath(why_not)
