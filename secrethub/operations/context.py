"""What an operation is told of its request."""

from __future__ import annotations

from datetime import datetime

from secrethub.engines.engine import Context, Fence
from secrethub.engines.identity import Identity
from secrethub.engines.mounts import Route
from secrethub.engines.runtime import Core
from secrethub.operations.call import Call, Token


def context_of(
    core: Core,
    call: Call,
    *,
    path: str,
    route: Route | None,
    identity: Identity | None,
    fence: Fence,
    now: datetime,
) -> Context:
    """Return the context of a request.

    Args:
        core: this process.
        call: the request.
        path: the one that decides (``engines/flat.py``).
        route: its way; None where it cannot be told.
        identity: who asks, as far as known.
        fence: what the decision rests on.
        now: the instant of the decision.
    """
    return Context(
        core=core,
        mount=route.mount.path if route is not None else "",
        mount_id=route.mount.uuid if route is not None else "",
        mount_options=route.mount.options if route is not None else {},
        mount_settings=route.mount.settings if route is not None else {},
        lease_ttl=route.mount.default_lease_ttl if route is not None else 0,
        max_lease_ttl=route.mount.max_lease_ttl if route is not None else 0,
        method=call.method,
        path=path,
        params=route.params if route is not None else {},
        query=call.query,
        identity=identity,
        fence=fence,
        client_address=call.client_address,
        door=call.door,
        peer=call.peer,
        request_id=call.request_id,
        now=now,
        body=call.body,
        wrap_ttl=call.wrap_ttl,
        streaming=call.streaming,
        token=call.credential.secret if isinstance(call.credential, Token) else None,
    )
