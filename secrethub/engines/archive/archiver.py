"""Archiving: old entries become a segment elsewhere, are read back from there, and then leave the ledger.

In this order, each step repeatable, so that a crash anywhere loses nothing and doubles nothing:

1. The segment is planned, in the database. From then on it is decided which entries it has.
2. Its entries are verified, written into a file, and put into the store, with the manifest after them.
3. Both are read back and compared. Only what was read back in this very run counts.
4. A signed ``prune`` entry in the ledger says which entries go, and what stays known of the rows they name.
5. They go, all of them in one transaction with the mark that the segment is finished.

One process does it at a time. What does not verify is never archived and never removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import zlib
from collections.abc import AsyncIterator
from typing import IO

import msgspec

from secrethub.audit.chain import StreamVerifier
from secrethub.audit.event import Record, prune_detail
from secrethub.audit.export_file import base_line, end_line, entry_line, header_line
from secrethub.audit.segment import Manifest, file_name, manifest_name
from secrethub.engines.archive.config import Archive, store_of
from secrethub.engines.archive.remains import Remains
from secrethub.engines.archive.store import Store, StoreFailed
from secrethub.engines.runtime import Core
from secrethub.engines.sinks.kinds import all_sinks
from secrethub.errors import Conflict, IntegrityFailure, Unavailable
from secrethub.ids import new_uuid
from secrethub.storage import archive as rows
from secrethub.storage import locks
from secrethub.storage.ledger import Note
from secrethub.storage.ledger_read import present

_LOCK = "audit-archive"
_LOCK_SECONDS = 120.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did.

    Attributes:
        segments: numbers of the segments that are finished.
        entries: how many left the ledger.
        waiting: why it did not go on, or empty.
    """

    segments: tuple[int, ...]
    entries: int
    waiting: str = ""


async def run(core: Core, archive: Archive, most: int = 100) -> Outcome:
    """Archive what is old enough, at most ``most`` segments of it.

    Raises:
        Conflict: another process is at it.
        Unavailable: the store, the database or the ledger does not do its part; the next run goes on.
        IntegrityFailure: entries do not verify, or what was read back is something else.
    """
    owner = new_uuid()
    lock = await locks.acquire(core.database, _LOCK, owner, _LOCK_SECONDS)
    if lock is None:
        raise Conflict("another process is archiving already")
    finished: list[int] = []
    entries, waiting = 0, ""
    try:
        store = await store_of(core, archive)
        async with core.database.read() as connection:
            now = await present(connection, core.clock.now())
        while len(finished) < most:
            lock = await locks.acquire(core.database, _LOCK, owner, _LOCK_SECONDS)
            if lock is None:
                raise Conflict("another process is archiving by now")
            planned = await _planned(core, archive, now)
            if planned is None:
                break
            manifest, since = planned
            uuids = [sink.uuid for sink in await all_sinks(core)]
            async with core.database.read() as connection:
                sinks = await rows.behind(connection, core.keyring(), uuids, manifest.parts)
            if sinks:
                waiting = f"{len(sinks)} sinks were not given these entries yet"
                break
            await _archive(core, store, manifest, since)
            finished.append(manifest.number)
            entries += manifest.entries
    except StoreFailed as exc:
        raise Unavailable(f"the archive's store: {exc.reason}") from exc
    finally:
        if lock is not None:
            await locks.release(core.database, lock)
    return Outcome(segments=tuple(finished), entries=entries, waiting=waiting)


async def _planned(core: Core, archive: Archive, now: int) -> tuple[Manifest, int] | None:
    """Return the segment that is under way, or the next one of what is old enough at ``now``.

    Returns:
        It, and the instant of the newest entry of the segment before it.
    """
    async with core.database.write() as connection:
        last = await rows.newest(connection)
        done = last
        if last is not None and not last[1]:
            before = await rows.segments(connection, after=last[0].number - 2, limit=1)
            done = before[0] if last[0].number > 1 and before else None
        if done is not None and not done[0].is_authentic(core.keyring().derived("audit-sign")):
            raise IntegrityFailure("audit_segments", str(done[0].number), "its signature is wrong")
        since = 0 if done is None else done[0].until
        if last is not None and not last[1]:
            if last[0].previous != ("" if done is None else done[0].digest()):
                raise IntegrityFailure("audit_segments", str(last[0].number), "another one comes before it")
            return last[0], since
        plan = await rows.plan(
            connection,
            cluster_id=core.keys.cluster_id,
            key=core.keyring().derived("audit-sign"),
            now=now,
            before=now - archive.retention * 1_000_000,
            most=archive.segment_entries,
        )
    return None if plan is None else (plan, since)


async def _archive(core: Core, store: Store, planned: Manifest, since: int) -> None:
    """Carry a planned segment to its end. ``since`` is the instant of the newest entry before it."""
    key = core.keyring().derived("audit-sign")
    remains = Remains()
    with tempfile.TemporaryFile(dir=core.settings.run_dir) as file:
        prunes = await _write(core, planned, file, remains)
        size = file.tell()
        file.seek(0)
        digest = await asyncio.to_thread(_digest, file)
        # Of the plan nothing is signed that was not seen in the entries.
        manifest = msgspec.structs.replace(
            planned, since=remains.since, until=remains.until, size=size, sha256=digest
        ).signed(key)
        await _put(store, file_name(manifest), file, size, digest)
    with tempfile.TemporaryFile(dir=core.settings.run_dir) as file:
        file.write(manifest.encoded())
        file.seek(0)
        await _put(store, manifest_name(manifest), file, file.seek(0, 2), manifest.digest())
    await remains.say_again(core, since)
    heads = rows.restated(prunes, manifest.parts)
    await core.ledger.append(
        Note(
            kind="prune",
            request_id="",
            actor="system",
            operation="ledger.prune",
            path="sys/audit/archive",
            outcome="done",
            reason=f"segment {manifest.number}, manifest {manifest.digest()}",
            detail=prune_detail(heads, remains.detail()),
        )
    )
    async with core.database.write() as connection:
        await rows.prune(connection, manifest)
    core.metrics.archived.inc(manifest.entries)


async def _write(core: Core, planned: Manifest, file: IO[bytes], remains: Remains) -> list[Record]:
    """Write the segment's file, verifying every entry; return its ``prune`` entries.

    Args:
        core: unsealed.
        planned: the segment.
        file: to write into.
        remains: takes in the entries.

    Raises:
        IntegrityFailure: an entry is not what was planned, or not authentic.
    """
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    file.write(packer.compress(header_line(planned.cluster_id, planned.planned_at)))
    prunes: list[Record] = []
    async for lines, page in _lines(core, planned):
        file.write(await asyncio.to_thread(packer.compress, lines))
        remains.feed(page)
        prunes += [record for record in page if record.entry.kind == "prune"]
    file.write(packer.compress(end_line(planned.entries)) + packer.flush())
    return prunes


async def _lines(core: Core, planned: Manifest) -> AsyncIterator[tuple[bytes, list[Record]]]:
    key = core.keyring().derived("audit-sign")
    count = 0
    async with core.database.read() as connection:
        for part in planned.parts:
            verifier: StreamVerifier | None = None
            first = b"" if part.first == 1 else base_line(part.before)
            async for page in rows.records_of(connection, part):
                if verifier is None:
                    signed = page[0].signature != b""
                    verifier = StreamVerifier(
                        part.stream, key if signed else None, part.first - 1, part.before.head
                    )
                for record in page:
                    bad = verifier.feed(record)
                    if bad is not None:
                        raise IntegrityFailure("audit_entries", f"{bad.stream} {bad.number}", bad.reason)
                count += len(page)
                yield first + b"".join(map(entry_line, page)), page
                first = b""
                await asyncio.sleep(0)
            if verifier is None or (verifier.number, verifier.head) != (part.last, part.end.head):
                raise IntegrityFailure(
                    "audit_entries", f"{part.stream} {part.last}", "it was changed or removed"
                )
    if count != planned.entries:
        raise IntegrityFailure("audit_segments", str(planned.number), "it does not have its entries")


async def _put(store: Store, name: str, file: IO[bytes], size: int, digest: str) -> None:
    """Put a file and read it back; one that is there already is left alone."""
    # S3 does not tell whoever may not list a bucket that an object is missing: it refuses.
    with contextlib.suppress(StoreFailed):
        if await asyncio.to_thread(_is_there, store, name, size, digest):
            return
    file.seek(0)
    await asyncio.to_thread(store.put, name, file)
    if not await asyncio.to_thread(_is_there, store, name, size, digest):
        raise IntegrityFailure("audit_segments", name, "what was read back is something else")


def _is_there(store: Store, name: str, size: int, digest: str) -> bool:
    with tempfile.TemporaryFile() as file:
        return store.get(name, file, size) and file.tell() == size and _digest(file) == digest


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
