"""Looking again and again whether the targets of engines answer.

Every process that works at targets has its own view, for what one can reach another may not. A target that
does not answer is asked by its breaker's pauses, so that it is used again soon after it is back, whether or
not anybody wants anything.
"""

from __future__ import annotations

import asyncio
import logging

from secrethub.engines.database.connection import FORM, Connection, connection_of
from secrethub.engines.database.targets import targets_of
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.storage.authority import ENGINE_CONFIGS

_LOOK_SECONDS = 1.0
_CHECK_SECONDS = 60.0
"""Between two checks of a target that is well."""
_AGAIN_SECONDS = 5.0
"""After it did not answer, until its breaker says."""
_LOAD_SECONDS = 10.0
"""Between two looks at which targets are configured."""
_TOGETHER = 8

_log = logging.getLogger(__name__)


async def watch_targets(core: Core) -> None:
    """Check the targets of every mount until cancelled."""
    known: list[Connection] = []
    loaded, moves = -_LOAD_SECONDS, -1
    places = asyncio.Semaphore(_TOGETHER)
    while True:
        await core.opened.wait()
        now = core.clock.monotonic()
        try:
            if moves != core.caches.authority_moves and now - loaded >= _LOAD_SECONDS:
                loaded, moves = now, core.caches.authority_moves
                known = await _configured(core)
            await asyncio.gather(*(_check(core, one, places) for one in known if _due(core, one, now)))
        except SecretHubError as exc:
            _log.warning("targets cannot be looked after now: %s", exc.code)
        await asyncio.sleep(_LOOK_SECONDS)


async def _configured(core: Core) -> list[Connection]:
    """Return every connection whose row is authentic, and close those that are no more."""
    rows, broken = await core.authority.everything(ENGINE_CONFIGS)
    for trouble in broken.values():
        core.metrics.integrity_failures.labels(trouble.table).inc()
    found = [connection_of(row) for row in rows if row.key.split("/")[1] == FORM]
    if not broken:
        targets_of(core).keep_only({one.key for one in found})
    return found


async def _check(core: Core, connection: Connection, places: asyncio.Semaphore) -> None:
    async with places:
        found = await targets_of(core).check(connection)
    if found.error:
        _log.warning("the target %s is not well: %s", connection.name, found.error)


def _due(core: Core, connection: Connection, now: float) -> bool:
    """Tell whether a target is to be asked now."""
    health = targets_of(core).health_of(connection.key)
    if health.breaker.probing:
        return not health.breaker.rests(now)
    return now - health.checked >= (_AGAIN_SECONDS if health.breaker.failures else _CHECK_SECONDS)
