"""Credentials that Core makes for this host: asked for once for all who want the same, renewed, made anew.

* Each application has its own, and the files that the agent writes have theirs. They are in memory and
  nowhere else: an agent that starts again has them made anew, and what it had before ends with its lease.
* What is in use is renewed, and made anew before it ends (:mod:`agent.lease_schedule`). What no file needs
  and no application has asked for since the last time ends by itself.
* When something was made anew, whoever writes it into a file is told. What it replaces is left to its end, so
  that nobody who has it open is cut off.
* While Core is away what is held is handed out until it ends, and not a moment longer: it is dead then.
* What Core refuses to renew or to make anew is left to its end as well: that a lease ends at once is for
  Core to order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from agent import lease_schedule as schedule
from agent.backoff import Backoff
from agent.cache import Packing
from agent.clocks import Instant
from agent.grants import named
from agent.lease_schedule import Lease
from agent.outcomes import PASSING
from agent.reader import LONGEST_PATH, PATIENCE
from agent.watches import FILES
from secrethub.errors import InvalidPath, SecretHubError, TooManyRequests, Unavailable
from secrethub.wire import messages as wire
from secrethub.wire.session import Request

A = TypeVar("A", bound=wire.CoreMessage)

MOST = 1024
"""Credentials that are held for applications."""
_LONGEST_WAIT = 30.0
"""Seconds between looks at the clock: it may have gone on while the host slept."""
_SHORTEST_WAIT = 0.05

_log = logging.getLogger(__name__)


class Core(Protocol):
    """What is needed of the connection."""

    async def ask(self, build: Callable[[int], Request], answer: type[A]) -> A:
        """Ask Core."""
        ...


class Want(NamedTuple):
    """What is held once: for whom, and made at which path."""

    application: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Credentials for a caller; ``core`` when they were made for it, ``cache`` when they were there."""

    lease: Lease
    source: Literal["core", "cache"]
    left: float
    """Seconds until they end, unless renewed."""


class Credentials:
    """Has credentials made and looks after them.

    Args:
        core: the connection.
        clocks: reads the wall and the boot clock.
        backoff: source of jitter.
        filed: the paths whose credentials are in files.
        replaced: told of a path whose credentials in files have changed, or have ended.
    """

    def __init__(
        self,
        core: Core,
        clocks: Callable[[], Instant],
        backoff: Backoff,
        filed: Callable[[], set[str]] = set,
        replaced: Callable[[str], None] = lambda _path: None,
    ) -> None:
        self._core = core
        self._clocks = clocks
        self._spread = backoff.jitter
        self._filed = filed
        self._replaced = replaced
        self._held: dict[Want, Lease] = {}
        self._used: set[Want] = set()
        self._flights: dict[Want, asyncio.Task[None]] = {}
        self._stirred = asyncio.Event()
        self._packing = Packing()

    def __len__(self) -> int:
        return len(self._held)

    async def get(self, application: str, path: str) -> Given:
        """Return credentials that are good for a while.

        Args:
            application: whose they are.
            path: canonical, where they are made.

        Raises:
            SecretHubError: what Core answered, or Unavailable when nothing can be had.
        """
        if len(path) > LONGEST_PATH:
            raise InvalidPath(f"the path is longer than {LONGEST_PATH} characters")
        want = Want(application, path)
        held = self._held.get(want)
        if held is not None:
            self._used.add(want)  # and nothing for what is refused: callers choose paths freely
        if held is not None and held.serves(self._now()):
            return self._given(held, "cache")
        if held is None and application != FILES and len(self._held) + len(self._flights) >= MOST:
            raise TooManyRequests("too many credentials are held for applications")
        try:
            async with asyncio.timeout(PATIENCE):
                await self._had(want)
        except TimeoutError as exc:
            raise Unavailable("Core did not answer in time") from exc
        except PASSING:
            if held is None or not held.is_good(self._now()):
                raise
        now = self._held.get(want)
        if now is None or not now.is_good(self._now()):
            raise Unavailable("the credentials have ended")
        self._used.add(want)
        return self._given(now, "cache" if now is held else "core")

    def hurry(self) -> None:
        """Try again at once what failed: there is a conversation with Core again."""
        now = self._now()
        for want, held in self._held.items():
            self._held[want] = schedule.hurried(held, now)
        self._stirred.set()

    def forget_all(self) -> None:
        """Forget everything held."""
        self._held.clear()
        self._used.clear()

    async def run(self) -> None:
        """Look after what is held, until cancelled."""
        try:
            while True:
                self._stirred.clear()
                await self._wait(self._tend_due())
        finally:
            for flight in self._flights.values():
                flight.cancel()

    def _tend_due(self) -> float:
        """Begin what is due; return the seconds until something else is."""
        now, wait = self._now(), _LONGEST_WAIT
        for want, held in list(self._held.items()):
            # What is under way says by itself when it is done.
            if want in self._flights:
                continue
            if held.due <= now:
                self._start(want, self._tend(want, held))
            else:
                wait = min(wait, held.due - now)
        return max(wait, _SHORTEST_WAIT)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()

    async def _had(self, want: Want) -> None:
        """Wait until something good is held: what is under way brings it, or they are made."""
        under_way = self._flights.get(want)
        if under_way is not None:
            await asyncio.shield(under_way)
            held = self._held.get(want)
            if held is not None and held.is_good(self._now()):
                return
        # It only found that what there was has ended.
        flight = self._flights.get(want)
        if flight is None or flight is under_way:
            flight = self._start(want, self._make(want))
        await asyncio.shield(flight)

    def _start(self, want: Want, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"credentials:{want.path}")
        self._flights[want] = task
        task.add_done_callback(lambda done: self._landed(want, done))
        return task

    def _landed(self, want: Want, task: asyncio.Task[None]) -> None:
        if self._flights.get(want) is task:
            del self._flights[want]
        self._stirred.set()
        if task.cancelled():
            return
        failure = task.exception()  # whoever still waits gets it
        if failure is not None and not isinstance(failure, SecretHubError):
            _log.error("credentials: internal error", extra={"error": type(failure).__name__})
            held = self._held.get(want)
            if held is not None:
                self._held[want] = schedule.left_alone(held, self._now())

    async def _make(self, want: Want) -> None:
        """Have credentials made, in place of those that are held."""
        asked_at = self._now()
        issued = await self._core.ask(
            lambda number: wire.Issue(id=number, path=want.path, application=named(want.application)),
            wire.Issued,
        )
        replaces = want in self._held
        data = self._packing.pack(issued.data)
        self._held[want] = schedule.made(issued, data, asked_at, self._spread)
        self._stirred.set()
        if replaces:
            _log.info("credentials made anew", extra={"path": want.path, "lease": issued.lease_id})
            self._tell(want)

    async def _tend(self, want: Want, held: Lease) -> None:
        """Renew what is held, make it anew, or let it end."""
        if not held.is_good(self._now()):
            self._held.pop(want, None)
            self._used.discard(want)
            self._tell(want)
            return
        in_use = want.path in self._filed() if want.application == FILES else want in self._used
        self._used.discard(want)
        if not in_use:
            self._held[want] = schedule.left_alone(held, self._now())
            return
        try:
            if not (held.renewable and await self._renew(want, held)):
                await self._make(want)
        except PASSING as exc:
            self._used.add(want)
            self._held[want] = schedule.postponed(held, self._now(), self._spread)
            _log.log(
                logging.INFO if held.failures else logging.WARNING,
                "credentials could not be renewed now",
                extra={"path": want.path, "error": exc.code},
            )
        except SecretHubError as exc:
            self._held[want] = schedule.left_alone(held, self._now())
            extra = {"path": want.path, "error": exc.code}
            _log.error("credentials are not made anew and will end", extra=extra)

    async def _renew(self, want: Want, held: Lease) -> bool:
        """Renew a lease; False when Core says that it cannot be renewed."""
        asked_at = self._now()
        try:
            answer = await self._core.ask(
                lambda number: wire.RenewLease(id=number, lease_id=held.lease_id), wire.Renewed
            )
        except PASSING:
            raise
        except SecretHubError as exc:
            _log.info("a lease is not renewed", extra={"path": want.path, "error": exc.code})
            return False
        self._held[want] = schedule.renewed(held, answer.lease_duration, asked_at, self._spread)
        return True

    def _tell(self, want: Want) -> None:
        if want.application == FILES:
            self._replaced(want.path)

    def _given(self, lease: Lease, source: Literal["core", "cache"]) -> Given:
        return Given(lease=lease, source=source, left=max(lease.ends - self._now(), 0.0))

    def _now(self) -> float:
        return self._clocks().boot
