"""What a process knows of whether a target answers: a breaker, and the last checks of it.

A target that does not answer is left alone for a while; then one caller finds out whether it is back.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from secrethub.clock import Clock
from secrethub.errors import SecretHubError, Unavailable
from secrethub.leases.retry import Breaker
from secrethub.storage import stray_checks
from secrethub.storage.database import Database
from secrethub.wire.durations import format_rfc3339

KEPT_CHECKS = 50
"""Checks of a target that are remembered."""

_AGAIN_SECONDS = 5.0
"""After it did not answer, until its breaker says."""


class Busy(Unavailable):
    """A target has too much to do. That says nothing of whether it answers."""


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


class CheckAnswer(msgspec.Struct, frozen=True):
    """A look at a target."""

    at: str
    seconds: float
    error: str


class StraySearch(msgspec.Struct, frozen=True):
    """What the last search for users without a lease left there, and why a later one failed."""

    at: str | None
    found: int
    names: list[str]
    error: str


class HealthOfTarget(msgspec.Struct, frozen=True):
    """How a target fares, as this node has seen it, the newest check first; strays as the cluster has."""

    node: str
    healthy: bool | None
    breaker: str
    failures: int
    checks: list[CheckAnswer]
    strays: StraySearch | None


@dataclass
class Health:
    """Of one target.

    Attributes:
        name: of the target, for errors.
        clock: tells the time.
        breaker: closed, open or half open.
        probing: somebody is asking, after it had been left alone.
        checked: when it was asked last, on a monotonic clock.
        checks: the last ones, the newest last.
    """

    name: str
    clock: Clock
    breaker: Breaker = field(default_factory=Breaker)
    probing: bool = False
    checked: float = -math.inf
    checks: deque[Check] = field(default_factory=lambda: deque(maxlen=KEPT_CHECKS))

    def refuse_while_away(self) -> None:
        """Refuse to begin anything at a target that is left alone.

        Raises:
            Unavailable: it is left alone, or somebody finds out whether it answers again.
        """
        resting = self.breaker.rests(self.clock.monotonic())
        if resting or (self.breaker.probing and self.probing):
            raise Unavailable(f"{self.name} does not answer; it is asked again in a moment")

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Watch whether a target answers while it is used; refuse the use of one that is left alone.

        Raises:
            Unavailable: it is left alone.
        """
        self.refuse_while_away()
        self.probing = probing = self.breaker.probing
        try:
            yield
        except (Unavailable, TimeoutError) as exc:
            # What was under way when it was found away says that once more, however many those are: it is not
            # left alone for any longer because of them.
            if not isinstance(exc, Busy) and (probing or not self.breaker.probing):
                self.breaker = self.breaker.failed(self.clock.monotonic())
            raise
        except SecretHubError:
            self.breaker = Breaker()
            raise
        else:
            self.breaker = Breaker()
        finally:
            if probing:
                self.probing = False

    def wake(self) -> None:
        """Let the next caller ask, although the target is left alone."""
        self.breaker = dataclasses.replace(self.breaker, opens_at=0.0)

    async def check(self, ask: Callable[[], Awaitable[object]], *, at_once: bool = False) -> Check:
        """Ask a target whether it is well, and remember the answer.

        Args:
            ask: does that, through :meth:`used`.
            at_once: also while it is left alone.
        """
        if at_once:
            self.wake()
        at, began, error = self.clock.now(), self.clock.monotonic(), ""
        try:
            await ask()
        except TimeoutError:
            error = "it did not answer in time"
        except SecretHubError as exc:
            error = exc.message or exc.code
        check = Check(at=at, seconds=self.clock.monotonic() - began, error=error)
        self.checks.append(check)
        self.checked = self.clock.monotonic()
        return check

    def due(self, every: float) -> bool:
        """Tell whether to ask now; ``every`` so many seconds while it is well."""
        now = self.clock.monotonic()
        if self.breaker.probing:
            return not self.breaker.rests(now)
        return now - self.checked >= (_AGAIN_SECONDS if self.breaker.failures else every)

    async def told(self, database: Database, node: str, key: str) -> dict[str, Any]:
        """Return a :class:`HealthOfTarget`.

        Args:
            database: knows of the last search for strays.
            node: that this is.
            key: of the target there.
        """
        checks = [
            {"at": format_rfc3339(check.at), "seconds": round(check.seconds, 3), "error": check.error}
            for check in reversed(self.checks)
        ]
        state = "closed"
        if self.breaker.probing:
            state = "open" if self.breaker.rests(self.clock.monotonic()) else "half-open"
        return {
            "node": node,
            "healthy": None if not checks else not checks[0]["error"],
            "breaker": state,
            "failures": self.breaker.failures,
            "checks": checks,
            "strays": await _last_search(database, key),
        }


async def _last_search(database: Database, key: str) -> dict[str, Any] | None:
    """Return what the cluster's last search for users without a lease found; None when there was none."""
    row = await stray_checks.last(database, key)
    if row is None or (row["checked_at"] is None and not row["error"]):
        return None
    at = None if row["checked_at"] is None else format_rfc3339(row["checked_at"])
    return {"at": at, "found": row["strays"], "names": list(row["names"]), "error": row["error"]}
