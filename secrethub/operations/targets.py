"""Looking again and again whether the targets of engines answer.

Every process that works at targets has its own view, for what one can reach another may not. A target that
does not answer is asked by its breaker's pauses, so that it is used again soon after it is back, whether or
not anybody wants anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from secrethub.engines.aws.account import account_of, accounts_of
from secrethub.engines.aws.root import is_root
from secrethub.engines.database.connection import FORM, connection_of
from secrethub.engines.database.targets import targets_of
from secrethub.engines.runtime import Core
from secrethub.engines.target_health import Check, Health
from secrethub.errors import SecretHubError
from secrethub.storage.authority import ENGINE_CONFIGS, Row

_LOOK_SECONDS = 1.0
_DATABASE_SECONDS = 60.0
"""Between two checks of a database that is well."""
_AWS_SECONDS = 900.0
"""Between two checks of an account of AWS, which appear in its owner's trail."""
_LOAD_SECONDS = 10.0
"""Between two looks at which targets are configured."""
_TOGETHER = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Watched:
    """A target, and how to ask it."""

    name: str
    health: Callable[[], Health]
    check: Callable[[], Awaitable[Check]]
    every: float


async def watch_targets(core: Core) -> None:
    """Check the targets of every mount until cancelled."""
    known: list[_Watched] = []
    loaded, moves = -_LOAD_SECONDS, -1
    places = asyncio.Semaphore(_TOGETHER)
    while True:
        await core.opened.wait()
        now = core.clock.monotonic()
        try:
            if moves != core.caches.authority_moves and now - loaded >= _LOAD_SECONDS:
                loaded, moves = now, core.caches.authority_moves
                known = await _configured(core)
            await asyncio.gather(*(_check(one, places) for one in known if one.health().due(one.every)))
        except SecretHubError as exc:
            _log.warning("targets cannot be looked after now: %s", exc.code)
        await asyncio.sleep(_LOOK_SECONDS)


async def _configured(core: Core) -> list[_Watched]:
    """Return every target whose row is authentic, and close those that are no more."""
    rows, broken = await core.authority.everything(ENGINE_CONFIGS)
    for trouble in broken.values():
        core.metrics.integrity_failures.labels(trouble.table).inc()
    databases = [row for row in rows if row.key.split("/")[1] == FORM]
    roots = [row for row in rows if is_root(row)]
    if not broken:
        targets_of(core).keep_only({row.key for row in databases})
        accounts_of(core).keep_only({row.key.split("/")[0] for row in roots})
    return [*(_database(core, row) for row in databases), *(_account(core, row) for row in roots)]


def _database(core: Core, row: Row) -> _Watched:
    connection, targets = connection_of(row), targets_of(core)
    return _Watched(
        name=connection.name,
        health=lambda: targets.health_of(connection),
        check=lambda: targets.check(connection),
        every=_DATABASE_SECONDS,
    )


def _account(core: Core, row: Row) -> _Watched:
    mount = row.key.split("/")[0]

    async def check() -> Check:
        # As it is now: the key may have been replaced since.
        return await (await account_of(core, mount)).check()

    return _Watched(
        name="AWS", health=lambda: accounts_of(core).health_of(mount), check=check, every=_AWS_SECONDS
    )


async def _check(one: _Watched, places: asyncio.Semaphore) -> None:
    async with places:
        found = await one.check()
    if found.error:
        _log.warning("the target %s is not well: %s", one.name, found.error)
