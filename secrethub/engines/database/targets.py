"""The targets that this process is connected to: one each, watched, and left alone while one does not answer.

A target is opened when it is first used and again whenever its configuration has changed. What is known of
whether it answers outlives that: a breaker, and the last checks of it. When the keys go everything is closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from secrethub.engines.database.connection import Connection
from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.target import Target
from secrethub.engines.runtime import Core
from secrethub.engines.target_health import Check, Health

_STATE = "database"


class Targets:
    """The targets of one process."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._open: dict[str, tuple[int, Target]] = {}
        self.health: dict[str, Health] = {}
        core.keys.on_wipe(self.close)

    def close(self) -> None:
        """Close every target."""
        for _, target in self._open.values():
            target.close()
        self._open.clear()

    def forget(self, key: str) -> None:
        """Close a target that is configured no more."""
        found = self._open.pop(key, None)
        if found is not None:
            found[1].close()
        self.health.pop(key, None)

    def keep_only(self, keys: Collection[str]) -> None:
        """Forget every target but these."""
        for key in (self._open.keys() | self.health.keys()) - set(keys):
            self.forget(key)

    def health_of(self, connection: Connection) -> Health:
        """Return what is known of a target."""
        found = self.health.get(connection.key)
        if found is None:
            found = self.health[connection.key] = Health(connection.name, self._core.clock)
        return found

    @asynccontextmanager
    async def use(self, connection: Connection) -> AsyncIterator[Target]:
        """Lend a target, unless it is left alone now.

        Raises:
            Unavailable: it does not answer, or is left alone.
        """
        async with self.health_of(connection).used():
            yield self._opened(connection)

    async def check(self, connection: Connection, *, at_once: bool = False) -> Check:
        """Ask a target whether it is well, and remember the answer.

        Args:
            connection: to it.
            at_once: also while it is left alone.
        """

        async def ask() -> None:
            async with self.use(connection) as target:
                await target.check()

        return await self.health_of(connection).check(ask, at_once=at_once)

    def _opened(self, connection: Connection) -> Target:
        found = self._open.get(connection.key)
        if found is not None and found[0] == connection.revision:
            return found[1]
        target = plugin_of(connection.plugin_name).open(connection.setup(self._core))
        if found is not None:
            found[1].close()
        self._open[connection.key] = (connection.revision, target)
        return target


def targets_of(core: Core) -> Targets:
    """Return the targets of this process."""
    found = core.engine_state.get(_STATE)
    if found is None:
        found = core.engine_state[_STATE] = Targets(core)
    assert isinstance(found, Targets)
    return found
