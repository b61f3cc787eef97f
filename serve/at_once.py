"""Reads whose answer is at hand, carried out without a task and in cohorts: what most requests are.

Everything such a read needs is in memory (``operations/reread.py``), so there is one thing to wait for, that
its entry becomes durable, and the ledger tells that itself. A task, its coroutines and the messages of ASGI
between them would cost as much as the read. Whatever is not as expected goes the whole way instead.

All reads that arrive in one turn of the event loop go through each step together, so that what a step works
with stays in the processor's caches (cohort scheduling: Larus and Parkes, "Using Cohort Scheduling to Enhance
Server Performance", USENIX 2002). One after the other they take a third more time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.ids import new_uuids
from secrethub.operations.reread import Reread, at_hand
from secrethub.storage.ledger import Note
from serve.again import Again
from serve.cycle import Cycle

if TYPE_CHECKING:
    from serve.app import Application

_log = logging.getLogger(__name__)


class AtOnce:
    """The reads at hand of one door."""

    def __init__(self, application: Application, core: Core) -> None:
        """Prepare.

        Args:
            application: the door's.
            core: this process.
        """
        self._application = application
        self._core = core
        self._arrived: list[tuple[Cycle | Again, Callable[[], None]]] = []
        self._durable: list[_Waiting] = []

    def take(self, cycle: Cycle | Again, whole_way: Callable[[], None]) -> None:
        """Take a read that may have its answer at hand.

        Args:
            cycle: the read's, which takes the answer.
            whole_way: carries the request out as any other.
        """
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._begin)
        self._arrived.append((cycle, whole_way))

    def _begin(self) -> None:
        """Carry out what arrived and hand in the entries; what is not at hand goes the whole way."""
        arrived, self._arrived = self._arrived, []
        started = time.monotonic()
        reads, notes = self._carried_out([cycle for cycle, _ in arrived])
        for (cycle, whole_way), read, note in zip(arrived, reads, notes, strict=True):
            if read is None or note is None:
                whole_way()
                continue
            waiting = _Waiting(self, read, cycle, whole_way, started)
            try:
                self._core.ledger.enter(note, waiting)
            except SecretHubError:
                whole_way()  # it fails there, too, and says why
            else:
                self._core.ledger.open += 1

    def _carried_out(
        self, cycles: Sequence[Cycle | Again]
    ) -> tuple[Sequence[Reread | None], Sequence[Note | None]]:
        """Return the reads of those whose answers are at hand, and their entries."""
        call_of = self._application.call_of
        try:
            calls = [call_of(*pair) for pair in zip(cycles, new_uuids(len(cycles)), strict=True)]
            reads = at_hand(self._core, calls)
            return reads, [None if read is None else read.entry() for read in reads]
        except Exception:  # noqa: BLE001 - the outermost edge, and one must not keep the others from an answer
            # Whose defect it is shows again on the whole way.
            _log.exception("reads could not be carried out together")
            nothing = [None] * len(cycles)
            return nothing, nothing

    def durable(self, waiting: _Waiting) -> None:
        """Answer a read whose entry is durable, with the others of its group."""
        if not self._durable:
            asyncio.get_running_loop().call_soon(self._answer)
        self._durable.append(waiting)

    def _answer(self) -> None:
        """Answer what still holds, which nothing can change before the answers have been written."""
        durable, self._durable = self._durable, []
        if self._core.ledger.fresh:
            answers = [self._answer_to(waiting) for waiting in durable]
        else:
            answers = [None] * len(durable)
        now, count = time.monotonic(), self._core.metrics.requests.count
        for waiting, answer in zip(durable, answers, strict=True):
            if answer is None:
                waiting.whole_way()
                continue
            outcome, encoded = answer
            count(waiting.read.operation.name, outcome, now - waiting.started)
            try:
                waiting.cycle.answer(*encoded)
            except RuntimeError:
                # What uvloop says of a transport that is closed.
                _log.exception("request %s could not be answered", waiting.read.call.request_id)

    def _answer_to(self, waiting: _Waiting) -> tuple[str, tuple[int, bytes, bytes]] | None:
        """Return the outcome and the encoded answer; None when the request must go the whole way."""
        try:
            return ("done", self._application.encoded(waiting.read)) if waiting.read.holds() else None
        except Exception as exc:  # noqa: BLE001 - the outermost edge, and others wait for their answers, too
            return self._failure(waiting, exc)

    def failed(self, waiting: _Waiting, exc: SecretHubError) -> None:
        """Say why there is no answer."""
        outcome, encoded = self._failure(waiting, exc)
        seconds = time.monotonic() - waiting.started
        self._core.metrics.requests.count(waiting.read.operation.name, outcome, seconds)
        waiting.cycle.answer(*encoded)

    def _failure(self, waiting: _Waiting, exc: Exception) -> tuple[str, tuple[int, bytes, bytes]]:
        code = exc.code if isinstance(exc, SecretHubError) else "internal"
        return code, self._application.failed(exc, waiting.read.call.request_id)

    def told(self) -> None:
        """Take note that one less is under way."""
        self._core.ledger.open -= 1


class _Waiting:
    """One read that waits for its entry (:class:`~secrethub.storage.ledger.Waiter`)."""

    __slots__ = ("_reads", "cycle", "read", "started", "whole_way")

    def __init__(
        self, reads: AtOnce, read: Reread, cycle: Cycle | Again, whole_way: Callable[[], None], started: float
    ) -> None:
        self._reads = reads
        self.read = read
        self.cycle = cycle
        self.whole_way = whole_way
        self.started = started

    def done(self) -> bool:
        """Whether nobody waits: what was read is written down even when the client is gone."""
        return False

    def set_result(self, _: None, /) -> None:
        """Answer: the entry is durable."""
        self._reads.told()
        self._reads.durable(self)

    def set_exception(self, exception: SecretHubError, /) -> None:
        """Say why there is no answer."""
        self._reads.told()
        self._reads.failed(self, exception)
