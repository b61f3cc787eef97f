"""Giving the ledger's entries to its sinks, apart from every request.

Every gateway offers to do it, and for each sink one of them has the claim. It reads what the sink was not
given yet, gives it page by page, and then moves the sink's place on. A process that dies in between leaves
the place where it was: the next one gives those entries again. So a sink gets every entry at least once, in
the order of each stream.

A sink that takes nothing for longer than its ``max_lag`` loses what is older than that; how much is written
into the ledger first. One whose place was edited is given the stream anew; that is written there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from secrethub.audit.event import GENESIS, StreamHead
from secrethub.background import Background, Work
from secrethub.clock import micros
from secrethub.engines.runtime import Core
from secrethub.engines.sinks.kinds import all_sinks, sign_places, target_of
from secrethub.engines.sinks.target import Sink, Target, TargetFailed
from secrethub.engines.system.ledger_entries import shown
from secrethub.errors import IntegrityFailure, SecretHubError, Unavailable
from secrethub.ids import new_uuid
from secrethub.operations.note import note
from secrethub.storage import locks, sinks, stream_ends
from secrethub.storage.ledger_read import present
from secrethub.storage.ledger_search import Found
from secrethub.wire.durations import parse_duration

_POLL_SECONDS = 1.0
_CLAIM_SECONDS = 30.0
_RENEW_SECONDS = 5.0
_PAGE = 250
_PIECE = 512 * 1024
"""Bytes that a target is given at once, or one entry: proxies take a megabyte by default."""
_LONGEST_PAUSE = 60.0
_NAMED = 10
"""Streams that an entry names."""
_FINISH_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Deliveries:
    """One task for each sink, as long as there is one and the keys are here."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._sinks: dict[str, Background] = {}
        self._moves = -1

    async def run(self) -> None:
        """Serve sinks until cancelled; what they hold is let go of then."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await self._keep({})

    async def _look(self) -> None:
        core = self._core
        if not core.unsealed:
            self._moves = -1
            await self._keep({})
            return
        moves = core.caches.authority_moves
        if moves == self._moves:
            return
        try:
            found = await all_sinks(core)
            for sink in found:
                if not sink.signed:
                    await sign_places(core, sink)
            await self._keep({sink.uuid: sink for sink in found})
            self._moves = moves
        except IntegrityFailure as exc:
            # Those that were read before go on; nobody is sent anywhere by a row that is not authentic.
            self._moves = moves
            core.metrics.integrity_failures.labels(exc.table).inc()
            _log.error("the ledger's sinks could not be read: %s", exc)
        except SecretHubError as exc:
            _log.warning("the ledger's sinks could not be read: %s", exc.code)

    async def _keep(self, wanted: dict[str, Sink]) -> None:
        for uuid in self._sinks.keys() - wanted.keys():
            await self._sinks.pop(uuid).end()
        for uuid in wanted.keys() - self._sinks.keys():
            self._sinks[uuid] = Background()
            self._sinks[uuid].begin(f"audit-sink-{wanted[uuid].name}", self._delivery(wanted[uuid]))

    def _delivery(self, sink: Sink) -> Work:
        return lambda: Delivery(self._core, sink).run()


class Delivery:
    """One sink's entries."""

    def __init__(self, core: Core, sink: Sink) -> None:
        self._core = core
        self._sink = sink
        self._owner = new_uuid()
        self._claim: locks.HeldLock | None = None
        self._renewed = 0.0
        self._target: Target | None = None
        self._pause = 0.0
        self._missing = 0

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while self._sink.options.get("node", self._node) == self._node:
                try:
                    busy = await self._round()
                    self._pause = 0.0
                except TargetFailed as exc:
                    busy = False
                    await self._failed(exc.reason)
                except SecretHubError as exc:
                    busy = False
                    await self._failed(exc.code)
                if not busy:
                    await asyncio.sleep(self._pause or _POLL_SECONDS)
            await asyncio.Event().wait()
        finally:
            await self._let_go()

    @property
    def _node(self) -> str:
        return self._core.settings.node

    async def _round(self) -> bool:
        """Deliver a page if there is one; tell whether there may be more."""
        core, sink = self._core, self._sink
        if not await self._claimed():
            return False
        if self._target is None:
            self._target = target_of(core.settings, sink)
        places = await self._places()
        if await self._skip_overdue(places):
            places = await self._places()
        key = core.keyring().derived("audit-sign")
        async with core.database.read() as connection:
            page = await sinks.following(connection, key, places, _PAGE)
            behind = await sinks.behind_of(connection, places)
            # A whole page says nothing of what comes after it.
            if len(page) < _PAGE:
                self._miss(await sinks.missing_of(connection, places) if behind > len(page) else 0)
        self._tell(page, behind)
        for piece in _pieces(page):
            if not await self._claimed():
                return False
            giving = asyncio.ensure_future(self._give(self._target, piece))
            try:
                await asyncio.shield(giving)
            except asyncio.CancelledError:
                # What the target has taken already would come again from the next process.
                await asyncio.wait([giving], timeout=_FINISH_SECONDS)
                giving.cancel()
                raise
        return len(page) == _PAGE

    async def _give(self, target: Target, piece: list[tuple[bytes, Found]]) -> None:
        await target.send([line for line, _ in piece])
        await self._moved([one for _, one in piece])

    async def _claimed(self) -> bool:
        """Have the claim, and for long enough to give a piece; tell whether we do."""
        now = time.monotonic()
        if self._claim is not None and now - self._renewed < _RENEW_SECONDS:
            return True
        name = sinks.claim_of(self._sink.uuid)
        self._claim = await locks.acquire(self._core.database, name, self._owner, _CLAIM_SECONDS)
        self._renewed = now
        if self._claim is None:
            self._untell()
        return self._claim is not None

    async def _moved(self, given: list[Found]) -> None:
        heads = {one.record.entry.stream: one.record for one in given}
        await self._move(
            [StreamHead(stream, record.entry.number, record.hash) for stream, record in heads.items()],
            delivered=len(given),
        )

    async def _move(self, heads: list[StreamHead], *, delivered: int = 0, skipped: int = 0) -> None:
        assert self._claim is not None
        async with self._core.database.write() as connection:
            moved = await sinks.moved(
                connection,
                self._core.keyring(),
                self._sink.uuid,
                self._claim.fencing,
                self._node,
                heads,
                delivered=delivered,
                skipped=skipped,
            )
        if not moved:
            self._claim = None
            raise Unavailable("another process has claimed this sink")

    async def _places(self) -> sinks.Places:
        """Return how far the sink has got; where that was edited it begins anew, which is noted first."""
        core, sink = self._core, self._sink
        async with core.database.read() as connection:
            places = await sinks.places_of(connection, core.keyring(), sink.uuid)
        if not places.edited:
            return places
        core.metrics.integrity_failures.labels(sinks.TABLE).inc(len(places.edited))
        _log.error("the sink %s of the ledger, %d streams: %s", sink.name, len(places.edited), sinks.EDITED)
        await note(
            core,
            operation="audit.sink.repeat",
            path=f"sys/audit/{sink.name}",
            actor="system",
            outcome="done",
            reason=sinks.EDITED,
            detail={"count": len(places.edited), "streams": places.edited[:_NAMED]},
        )
        anew = [StreamHead(stream, 0, GENESIS) for stream in places.edited]
        await self._move(anew)
        return sinks.Places(places.held + anew, [])

    async def _skip_overdue(self, places: sinks.Places) -> bool:
        """Leave out what is older than the sink may be behind, once that is written down; tell whether."""
        core, sink = self._core, self._sink
        async with core.database.read() as connection:
            now = await present(connection, core.clock.now())
            before = now - parse_duration(sink.options["max_lag"]) * 1_000_000
            heads, count = await sinks.overdue(connection, places, before)
        if not count:
            return False
        await note(
            core,
            operation="audit.sink.skip",
            path=f"sys/audit/{sink.name}",
            actor="system",
            outcome="done",
            reason="the sink was too far behind",
            detail={"count": count, "before": before},
        )
        await self._move(heads, skipped=count)
        return True

    async def _failed(self, reason: str) -> None:
        core, sink = self._core, self._sink
        self._pause = min(_LONGEST_PAUSE, max(_POLL_SECONDS, self._pause * 2))
        core.metrics.sink_failures.labels(sink.name).inc()
        if not self._pause > _POLL_SECONDS:
            _log.warning("the sink %s of the ledger takes nothing: %s", sink.name, reason)
        if self._claim is None:
            return
        with contextlib.suppress(SecretHubError):
            async with core.database.write() as connection:
                await sinks.failed(connection, sink.uuid, self._claim.fencing, self._node, reason)
        with contextlib.suppress(SecretHubError):
            async with core.database.read() as connection:
                places = await sinks.places_of(connection, core.keyring(), sink.uuid)
                core.metrics.sink_behind.labels(sink.name).set(await sinks.behind_of(connection, places))

    def _tell(self, page: list[Found], behind: int) -> None:
        core, name = self._core, self._sink.name
        broken = sum(one.integrity == "broken" for one in page)
        if broken:
            core.metrics.integrity_failures.labels("audit_entries").inc(broken)
        core.metrics.sink_behind.labels(name).set(behind)
        oldest = min((one.record.entry.at for one in page), default=None)
        lag = 0.0 if oldest is None else max(0.0, (micros(core.clock.now()) - oldest) / 1_000_000)
        core.metrics.sink_lag.labels(name).set(lag)

    def _miss(self, missing: int) -> None:
        """Tell once of entries that the sink waits for in vain."""
        if missing > self._missing:
            self._core.metrics.integrity_failures.labels(stream_ends.TABLE).inc(missing - self._missing)
            _log.error("the sink %s of the ledger waits in vain: " + sinks.MISSING, self._sink.name, missing)
        self._missing = missing

    def _untell(self) -> None:
        for metric in (self._core.metrics.sink_behind, self._core.metrics.sink_lag):
            with contextlib.suppress(KeyError):
                metric.remove(self._sink.name)

    async def _let_go(self) -> None:
        self._untell()
        if self._target is not None:
            await self._target.close()
        if self._claim is not None:
            with contextlib.suppress(SecretHubError):
                await locks.release(self._core.database, self._claim)


def _pieces(page: list[Found]) -> list[list[tuple[bytes, Found]]]:
    """Cut a page, so that little comes again after a failure."""
    pieces: list[list[tuple[bytes, Found]]] = []
    size = _PIECE
    for one in page:
        line = line_of(one)
        if size + len(line) > _PIECE:
            pieces.append([])
            size = 0
        pieces[-1].append((line, one))
        size += len(line)
    return pieces


def line_of(one: Found) -> bytes:
    """Return an entry as sinks get it: as people are shown it, with digest and signature."""
    record = one.record
    return msgspec.json.encode(
        {
            **shown(record),
            "integrity": one.integrity,
            "hash": record.hash.hex(),
            "signature": record.signature.hex(),
        }
    )
