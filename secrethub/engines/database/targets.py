"""The targets that this process is connected to: one each, watched, and left alone while one does not answer.

A target is opened when it is first used and again whenever its configuration has changed. What is known of
whether it answers outlives that: a breaker, and the last checks of it. When the keys go everything is closed.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from secrethub.engines.database.connection import Connection
from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.target import Busy, Target
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError, Unavailable
from secrethub.leases.retry import Breaker

KEPT_CHECKS = 50
"""Checks of a target that are remembered."""

_STATE = "database"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """How a target was found.

    Attributes:
        at: when.
        seconds: that the answer took.
        error: why it is not well, or empty.
    """

    at: datetime
    seconds: float
    error: str = ""


@dataclass
class Health:
    """What this process knows of whether a target answers.

    Attributes:
        breaker: closed, open or half open.
        probing: somebody is asking, after it had been left alone.
        checked: when it was asked last, on a monotonic clock.
        checks: the last ones, the newest last.
    """

    breaker: Breaker = field(default_factory=Breaker)
    probing: bool = False
    checked: float = -math.inf
    checks: deque[Check] = field(default_factory=lambda: deque(maxlen=KEPT_CHECKS))


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

    def health_of(self, key: str) -> Health:
        """Return what is known of a target."""
        return self.health.setdefault(key, Health())

    def refuse_while_away(self, connection: Connection) -> None:
        """Refuse to begin anything at a target that is left alone.

        Raises:
            Unavailable: it is left alone, or somebody finds out whether it answers again.
        """
        health = self.health_of(connection.key)
        resting = health.breaker.rests(self._core.clock.monotonic())
        if resting or (health.breaker.probing and health.probing):
            raise Unavailable(f"{connection.name} does not answer; it is asked again in a moment")

    @asynccontextmanager
    async def use(self, connection: Connection) -> AsyncIterator[Target]:
        """Lend a target, unless it is left alone now.

        After a rest one caller finds out whether it answers again; the others are refused meanwhile.

        Raises:
            Unavailable: it does not answer, or is left alone.
        """
        self.refuse_while_away(connection)
        health = self.health_of(connection.key)
        health.probing = probing = health.breaker.probing
        try:
            yield self._opened(connection)
        except (Unavailable, TimeoutError) as exc:
            if not isinstance(exc, Busy):
                health.breaker = health.breaker.failed(self._core.clock.monotonic())
            raise
        except SecretHubError:
            health.breaker = Breaker()
            raise
        else:
            health.breaker = Breaker()
        finally:
            if probing:
                health.probing = False

    async def check(self, connection: Connection, *, at_once: bool = False) -> Check:
        """Ask a target whether it is well, and remember the answer.

        Args:
            connection: to it.
            at_once: also while it is left alone.
        """
        health = self.health_of(connection.key)
        if at_once:
            health.breaker = dataclasses.replace(health.breaker, opens_at=0.0)
        at, began, error = self._core.clock.now(), self._core.clock.monotonic(), ""
        try:
            async with self.use(connection) as target:
                await target.check()
        except TimeoutError:
            error = "it did not answer in time"
        except SecretHubError as exc:
            error = exc.message or exc.code
        check = Check(at=at, seconds=self._core.clock.monotonic() - began, error=error)
        health.checks.append(check)
        health.checked = self._core.clock.monotonic()
        return check

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
