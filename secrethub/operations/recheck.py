"""Deciding again about a request that was allowed, while its answer is still on its way."""

from __future__ import annotations

from secrethub.engines.engine import Fence
from secrethub.engines.flat import flat_view
from secrethub.engines.runtime import Core
from secrethub.errors import PermissionDenied, Sealed
from secrethub.operations.call import Call
from secrethub.operations.context import context_of
from secrethub.operations.decision import require
from secrethub.operations.identify import identify

_NO_FENCE = Fence(generation=0, seal_epoch=0, written=[])


async def check_again(core: Core, call: Call) -> None:
    """Check that the caller may still have what he asked for.

    Raises:
        PermissionDenied: not any more, or his token has ended.
        Sealed: there are no keys.
        Unavailable, IntegrityFailure: it cannot be told.
    """
    if not core.unsealed:
        raise Sealed
    now = core.clock.now()
    path = flat_view(call.method, call.path)
    identity = await identify(core, call.credential, now, call.client_address, spent=True)
    if identity.good_until is not None and identity.good_until <= now:
        raise PermissionDenied("the token has ended")
    route = await core.mounts.route(call.method, path)
    context = context_of(core, call, path=path, route=route, identity=identity, fence=_NO_FENCE, now=now)
    await require(core, identity, route, call.method, path, context.when)
