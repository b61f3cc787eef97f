"""The ledger as a file: ``sys/audit/export``, as JSON Lines or CSV, page by page.

Without criteria JSON Lines have every entry, as of one instant, and whatever a verification elsewhere needs.
With criteria, and as CSV, it is a selection in the order of time. A failure on the way ends the connection
before the answer's end, so that no part is taken for the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence

import msgspec

from secrethub.audit.event import Record, StreamHead
from secrethub.audit.export_file import (
    base_line,
    checkpoint_base_line,
    checkpoint_line,
    csv_lines,
    end_line,
    entry_line,
    header_line,
)
from secrethub.clock import micros
from secrethub.engines.engine import Answer, Context, Flow, Operation
from secrethub.engines.runtime import Core
from secrethub.engines.system.ledger_entries import PLAIN, Criteria, filter_of, shown
from secrethub.engines.system.under_way import UnderWay
from secrethub.errors import InvalidRequest
from secrethub.storage.archive import bases
from secrethub.storage.checkpoints import base, checkpoint_pages, pruned_unproven
from secrethub.storage.database import FAILURES, unavailable
from secrethub.storage.ledger_read import pages_of
from secrethub.storage.ledger_search import Filter, Found, Place, find

_PAGE = 1000
_LAST = (1 << 63) - 1
_MOST_AT_ONCE = 4
_LOOKS, _LOOK_SECONDS = 10, 0.3
"""For a checkpoint of what was pruned just now."""
_PAUSE = "SET LOCAL idle_in_transaction_session_timeout = '60s'"
"""A slow reader keeps the snapshot of a whole export for so long."""
_COLUMNS = (
    "time",
    "stream",
    "number",
    "kind",
    "request_id",
    "actor",
    "operation",
    "path",
    "outcome",
    "reason",
    "client",
    "door",
    "detail",
    "integrity",
)


class ExportRequest(Criteria, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the ledger; the criteria are those of a search.

    Attributes:
        format: ``jsonl`` or ``csv``.
    """

    format: str = "jsonl"


def export_operations() -> tuple[Operation, ...]:
    """Return the operation that exports."""
    return (
        Operation(
            name="sys.audit.export",
            method="read",
            pattern="audit/export",
            handler=export,
            capability="read",
            request=ExportRequest,
            sudo=True,
            wraps=False,
            media=("application/x-ndjson", "text/csv"),
            plain=PLAIN | {"format"},
            summary="Export the audit ledger as JSON Lines or CSV.",
        ),
    )


async def export(context: Context, body: ExportRequest) -> Answer:
    """Answer a file, a page at a time."""
    if body.format not in {"jsonl", "csv"}:
        raise InvalidRequest("format is jsonl or csv")
    core = context.core
    wanted = await filter_of(context, body)
    now = micros(context.now)
    exports = UnderWay(core, "exports", _MOST_AT_ONCE)
    exports.check()
    if body.format == "csv":
        media, chunks = "text/csv; charset=utf-8", _csv(core, wanted, now)
    else:
        media = "application/x-ndjson"
        chunks = _whole(core, now) if wanted == Filter() else _selected(core, wanted, now)
    flow = Flow(media_type=media, chunks=exports.counted(context.request_id, chunks))
    return Answer(flow=flow, detail={"format": body.format})


async def _whole(core: Core, now: int) -> AsyncGenerator[bytes, None]:
    yield header_line(core.keys.cluster_id, now)
    # Elsewhere only a checkpoint tells that streams may begin later.
    for _ in range(_LOOKS):
        if not await pruned_unproven(core.database):
            break
        await asyncio.sleep(_LOOK_SECONDS)
    count, stream = 0, ""
    # Outside the pool: a slow reader holds it for long.
    connection = await core.database.connect()
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(_PAUSE)
            begins = await bases(connection)
            first = await base(connection)
            if first is not None:
                yield checkpoint_base_line(first)
            async for checkpoints in checkpoint_pages(connection):
                yield b"".join(map(checkpoint_line, checkpoints))
            async for page in pages_of(connection):
                count += len(page)
                yield b"".join(_lines(page, stream, begins))
                stream = page[-1].entry.stream
    except FAILURES as exc:
        raise unavailable(exc) from exc
    finally:
        with contextlib.suppress(*FAILURES):
            await connection.close(timeout=2)
    yield end_line(count)


def _lines(page: Sequence[Record], stream: str, begins: Mapping[str, StreamHead]) -> Iterator[bytes]:
    """Yield the lines of a page that comes after entries of ``stream``."""
    for record in page:
        entry = record.entry
        if entry.stream != stream:
            stream = entry.stream
            before = begins.get(stream)
            if before is not None and entry.number > 1:
                yield base_line(before)
        yield entry_line(record)


async def _selected(core: Core, wanted: Filter, now: int) -> AsyncGenerator[bytes, None]:
    yield header_line(core.keys.cluster_id, now, selection=True)
    count = 0
    async for page in _found(core, wanted, now):
        count += len(page)
        yield b"".join(entry_line(one.record) for one in page)
    yield end_line(count)


async def _csv(core: Core, wanted: Filter, now: int) -> AsyncGenerator[bytes, None]:
    yield csv_lines([_COLUMNS])
    async for page in _found(core, wanted, now):
        yield csv_lines(_cells(one) for one in page)


async def _found(core: Core, wanted: Filter, now: int) -> AsyncIterator[list[Found]]:
    """Yield pages in the order of time, up to the present: what is written meanwhile has no end.

    Or up to the newest entry that there is: a clock may have been ahead.
    """
    async with core.database.read() as connection:
        newest = await connection.fetchval("SELECT max(at) FROM audit_entries")
    until = max(now, min(newest or 0, _LAST - 1) + 1)
    until = until if wanted.until is None else min(wanted.until, until)
    wanted = msgspec.structs.replace(wanted, until=until)
    key = core.keyring().derived("audit-sign")
    beyond: Place | None = None
    while True:
        async with core.database.read() as connection:
            page = await find(connection, key, wanted, beyond=beyond, limit=_PAGE, oldest_first=True)
        if page:
            yield page
        if len(page) < _PAGE:
            return
        beyond = page[-1].place


def _cells(one: Found) -> list[str | int]:
    fields = {**shown(one.record), "detail": one.record.entry.detail, "integrity": one.integrity}
    return [fields[name] for name in _COLUMNS]
