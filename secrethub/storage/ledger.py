"""The writing side of the audit ledger: one stream a process, group commit, freshness for free.

All entries that wait while a commit is under way go into the next one; one call of
``ledger_commit`` makes them durable and returns what has changed (``storage/freshness.py``).
Nothing is buffered across a failure: when a commit fails every waiting request gets
:class:`~secrethub.errors.Unavailable`. When it is unknown whether a commit happened, the stream ends
there, and the next one opens with a signed ``lost`` entry that names the range. So does a stream whose
newest entries the database does not have any more.

Entries are dated by the process's clock, or by the database's where that is more than a minute ahead: what
leaves the ledger by its age, or is left out by a sink, goes by the clock that is behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec

from secrethub.audit.chain import Chain
from secrethub.audit.event import GENESIS, Kind, Outcome, StreamHead, lost_detail, open_detail
from secrethub.background import end
from secrethub.errors import IntegrityFailure, Sealed, SecretHubError, Unavailable
from secrethub.ids import new_uuid
from secrethub.storage.database import FAILURES, Database, unavailable
from secrethub.storage.freshness import Caches
from secrethub.storage.ledger_rows import BEHIND, COMMIT, NEWEST_OF, NOT_DURABLE, WHY, appended
from secrethub.storage.ledger_waiters import Waiter, tell

_BATCH = 512
_MOST_WAITING = 20_000
_SLOW_SECONDS = 1.0
_IDLE_TURNS = 2
_FADING = 0.98
_LEAST = 32
"""Entries of a group below which a commit takes longer than the work on as many requests."""
_LOOKS = 3
_LOOK = "SELECT * FROM freshness($1)"
_NEWEST = """SELECT stream, number, hash FROM audit_entries
             WHERE signature <> ''::bytea
                 AND at < (extract(epoch FROM now() + interval '1 minute') * 1000000)::bigint
             ORDER BY at DESC, number DESC LIMIT 1"""
"""What a clock dated far ahead would be the newest for as long, and say nothing of what came after it."""

_log = logging.getLogger(__name__)


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """An entry before it has its place in a stream. ``detail`` is canonical JSON, masked already.

    The fields are those of :class:`~secrethub.audit.event.Entry` after ``at``, in their order.
    """

    kind: Kind
    request_id: str
    actor: str
    operation: str
    path: str
    outcome: Outcome
    reason: str = ""
    client: str = ""
    door: str = ""
    detail: str = "{}"


class Ledger:
    """This process's stream. ``append`` returns when the entry is durable and the caches are fresh."""

    def __init__(
        self,
        database: Database,
        caches: Caches,
        *,
        node: str,
        process: str,
        key: Callable[[], bytes | None],
        wall: Callable[[], float] = time.time,
        slow: float = _SLOW_SECONDS,
    ) -> None:
        """Prepare a writer.

        Args:
            database: where the ledger is.
            caches: told what every commit returns.
            node: name of the node, for the opening entry.
            process: what this process is, for the opening entry.
            key: gives the signing key, or None while sealed.
            wall: seconds since the epoch.
            slow: seconds after which what was learned of the present is too old.
        """
        self._database = database
        self._caches = caches
        self._origin = {"node": node, "process": process, "pid": os.getpid()}
        self._key = key
        self._wall = wall
        self._slow = slow
        self._chain: Chain | None = None
        self._chain_key: bytes | None = None
        self._lost: list[str] = []
        self._waiting: list[tuple[Note, Waiter]] = []
        self._committing = 0
        self._wake = asyncio.Event()
        self._connection: asyncpg.Connection[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked = 0.0
        self._slow_clock = False
        self._busiest = 0.0
        """The most requests that were under way, or entries that waited, lately."""
        self.open = 0
        """Requests under way in this process; each may come for an entry."""
        self.entries = 0
        self.behind = 0
        """How often the database turned out to have lost entries of this process."""
        self.lag = 0.0
        """Seconds that the newest batch waited for its commit."""

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="ledger")

    async def stop(self) -> None:
        """Close the stream and end; entries still waiting are refused."""
        if self._task is not None:
            await end(self._task)
            self._task = None
        if self._chain is not None and self._connection is not None:
            with contextlib.suppress(Unavailable, Sealed, IntegrityFailure):
                await self._commit([self._own("close", "{}")])
        self._refuse(Unavailable("this process is stopping"))
        if self._connection is not None:
            with contextlib.suppress(*FAILURES):
                await self._connection.close(timeout=2)
            self._connection = None

    @property
    def running(self) -> bool:
        """Whether entries are taken."""
        return self._task is not None and not self._task.done()

    @property
    def waiting(self) -> int:
        """Entries not yet durable."""
        return len(self._waiting) + self._committing

    async def append(self, note: Note) -> None:
        """Make ``note`` durable; afterwards ``caches`` know everything committed before it.

        Raises:
            Unavailable: it could not be made durable, or that is unknown; disclose nothing.
            Sealed: there is no key to sign with.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.enter(note, future)
        await future
        # Where it is too old, ask again, so that nothing leaves on an old decision.
        for _ in range(_LOOKS):
            if self.fresh:
                return
            await self._look(again=False)
        if not self.fresh:
            raise Unavailable("the database answers too slowly")

    def enter(self, note: Note, waiter: Waiter) -> None:
        """Have ``note`` made durable, and tell ``waiter`` when that has been done or has failed.

        What :meth:`append` does beyond that is up to the caller: nothing may leave unless the caches are
        :attr:`fresh`.

        Raises:
            Unavailable: no entries are taken.
        """
        if not self.running:
            raise Unavailable("the ledger is not running")
        if len(self._waiting) >= _MOST_WAITING:
            raise Unavailable("too many audit entries wait for the database")
        self._waiting.append((note, waiter))
        if not self._wake.is_set():
            self._wake.set()

    @property
    def fresh(self) -> bool:
        """Whether what the newest commit told of the present is young enough to answer by it.

        A process or database that stood still meanwhile (SIGSTOP, a suspended machine) learned of the
        present too long ago.
        """
        return _now() - self._asked <= self._slow

    async def look(self) -> None:
        """Take over what changed, without writing an entry.

        Raises:
            Unavailable: the database does not answer.
            IntegrityFailure: the database is older than this process.
        """
        await self._look(again=True)

    async def _look(self, *, again: bool) -> None:
        """Ask for what changed; unless ``again``, what was heard while waiting to ask is enough."""
        async with self._database.read() as connection, self._caches.look:
            if not again and self.fresh:
                return
            asked, least = _now(), self._caches.expected
            rows = await connection.fetch(_LOOK, self._caches.cursor)
            self._caches.apply(rows, least=least)
            self._asked = asked

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._gathered()
                group = self._group()
                batch = self._waiting[:group]
                del self._waiting[:group]
                notes = [note for note, waiter in batch if not waiter.done()]
                if not notes:
                    continue
                failure: SecretHubError | None = None
                self._committing = len(notes)
                try:
                    await self._commit(notes)
                except (Unavailable, Sealed, IntegrityFailure) as exc:
                    failure = exc
                except asyncio.CancelledError:
                    tell(batch, Unavailable("this process is stopping"))
                    raise
                except Exception as exc:  # noqa: BLE001
                    # A defect of ours in one entry must not end the writer for all who come after.
                    _log.exception("a group of audit entries could not be written")
                    failure = unavailable(exc, "the audit ledger cannot be written")
                finally:
                    self._committing = 0
                # Not here: the next group is on its way to the database while these are answered.
                loop.call_soon(tell, batch, failure)

    async def _gathered(self) -> None:
        """Let requests that are ready to run come into this group too: fewer, larger commits.

        A request needs two turns of the loop: its bytes are read in one, it runs in the next. Half of all
        are enough: while they are committed this process works on the others, instead of standing still.
        """
        idle = 0
        while idle < _IDLE_TURNS and len(self._waiting) < _BATCH:
            before = len(self._waiting)
            if before >= self._group():
                return
            await asyncio.sleep(0)
            idle = idle + 1 if len(self._waiting) == before else 0

    def _group(self) -> int:
        """How many entries to commit together, at most."""
        self._busiest = max(self._busiest * _FADING, self.open, len(self._waiting))
        return max(_LEAST, min(_BATCH, int(self._busiest / 2)))

    def _refuse(self, exc: SecretHubError) -> None:
        tell(self._waiting, exc)
        self._waiting.clear()

    def _own(self, kind: Kind, detail: str) -> Note:
        return Note(
            kind=kind,
            request_id="",
            actor="system",
            operation=f"ledger.{kind}",
            path="",
            outcome="done",
            detail=detail,
        )

    async def _opened(self, notes: list[Note]) -> tuple[Chain, list[Note]]:
        """Return the stream to write to; a new one begins with what it knows of those before it."""
        key = self._key()
        if key is None:
            self._chain = None
            raise Sealed
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect()
        if self._chain is not None and key == self._chain_key:
            return self._chain, notes
        # Whoever removes the end of another stream contradicts this one from now on.
        newest = await self._connection.fetchrow(_NEWEST)
        follows = None if newest is None else StreamHead(newest["stream"], newest["number"], newest["hash"])
        self._chain_key = key
        self._chain = Chain(new_uuid(), key)
        first = [self._own("open", open_detail(self._origin, follows))]
        first += [self._own("lost", lost) for lost in self._lost]
        return self._chain, first + notes

    async def _commit(self, notes: list[Note]) -> None:
        """Commit ``notes`` in one transaction; the database dates them where our clock is far behind its."""
        started = time.monotonic()
        present = await self._written(notes)
        if bool(present) is not self._slow_clock:
            self._slow_clock = bool(present)
            _log.warning("this node's clock is %s the database's", "far behind" if present else "again near")
        if present and await self._written(notes, present):
            raise Unavailable("the database answers too slowly")
        self.lag = time.monotonic() - started

    async def _written(self, notes: list[Note], present: int = 0) -> int:
        """Chain ``notes`` and commit them in one transaction.

        A rejected batch leaves the chain where it was: it is only moved on afterwards.

        Args:
            notes: without what a new stream begins with.
            present: by the database's clock, in microseconds since the epoch; they are not dated before it.

        Returns:
            0, or the present by the database's clock if they would be dated too long before it.
        """
        try:
            chain, notes = await self._opened(notes)
        except FAILURES as exc:
            raise unavailable(exc, "the audit ledger cannot be written") from exc
        start = StreamHead(chain.stream, chain.number, chain.head)
        at = max(int(self._wall() * 1_000_000), present)
        try:
            records = chain.extend(at, map(msgspec.structs.astuple, notes))
        except BaseException:
            self._stay_at(start)
            raise
        async with self._caches.look:
            asked, least = _now(), self._caches.expected
            try:
                assert self._connection is not None
                rows = await self._connection.fetch(COMMIT, *appended(start, records), self._caches.cursor)
                place = chain.stream, chain.number, chain.head
                why = None if rows else await self._connection.fetchrow(WHY, *place)
            except BaseException as exc:
                if getattr(exc, "sqlstate", None) == BEHIND:
                    start = await self._survived(start)
                self._end_stream(start, chain.number, exc)
                if isinstance(exc, (*FAILURES, asyncpg.PostgresError)):
                    _log.warning("the ledger could not be written: %s", type(exc).__name__)
                    raise unavailable(exc, "the audit ledger cannot be written") from exc
                raise
            if why is not None and not why["written"]:
                self._stay_at(start)
                if why["durable"]:
                    return int(why["present"])
                _log.error(NOT_DURABLE)
                raise Unavailable(NOT_DURABLE)
            self._lost.clear()
            self._caches.apply(rows, least=least)
            self.entries += len(records)
            self._asked = asked
        return 0

    def _stay_at(self, start: StreamHead) -> None:
        """Go on where the stream ends; one that has no entry yet is begun again, with what it opens with."""
        begun = start.number > 0
        self._chain = Chain(start.stream, self._chain_key, start.number, start.head) if begun else None

    async def _survived(self, start: StreamHead) -> StreamHead:
        """Return where the database has this stream end: it lost entries, as a failover may do."""
        _log.error("the database has lost entries of the audit ledger: stream %s", start.stream)
        self.behind += 1
        newest = None
        with contextlib.suppress(*FAILURES, asyncpg.PostgresError):
            assert self._connection is not None
            newest = await self._connection.fetchrow(NEWEST_OF, start.stream)
        # Without a place nothing is claimed of the stream, only that its entries may be gone.
        number, head = (0, GENESIS) if newest is None else (newest["number"], newest["hash"])
        return StreamHead(start.stream, number, head)

    def _end_stream(self, start: StreamHead, last: int, exc: BaseException) -> None:
        """Leave a stream whose newest entries may or may not have been committed."""
        self._chain = None
        self._lost.append(lost_detail(start, last))
        if self._connection is not None and not isinstance(exc, asyncpg.PostgresError):
            self._connection.terminate()
            self._connection = None


def _now() -> float:
    """Seconds on a clock that also counts while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
