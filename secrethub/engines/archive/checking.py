"""Verifying the archive: every segment is read from its store again and checked as a whole.

The manifests must be the cluster's, without a gap and each naming the one before it; files must be those that
manifests name; entries must chain from the first to the last and carry the cluster's signature. And the
archive must reach as far as the ledger's ``prune`` entries say.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from secrethub.audit.chain import StreamVerifier
from secrethub.audit.event import Entry, Record
from secrethub.audit.segment import Manifest, file_name, manifest_name, read_manifest
from secrethub.audit.stream_claims import pruned_by
from secrethub.engines.archive.config import Archive, store_of
from secrethub.engines.archive.store import Store, StoreFailed
from secrethub.engines.runtime import Core
from secrethub.errors import Unavailable
from secrethub.storage import archive as rows

_PAGE = 100
_CHUNK = 1 << 20
_MANIFEST_BYTES = 16 << 20
_LINE_BYTES = 1 << 22


class Damaged(Exception):
    """What is wrong with a segment."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on an archive.

    Attributes:
        segments: that were checked.
        entries: in them.
        bad: number of the first bad segment; 0 when it is the archive as a whole, None for none.
        reason: what is wrong.
    """

    segments: int
    entries: int
    bad: int | None = None
    reason: str = ""


async def check(core: Core, archive: Archive) -> Verdict:
    """Verify every segment that is finished.

    Raises:
        Unavailable: the store or the database does not answer.
    """
    key = core.keyring().derived("audit-sign")
    ends: dict[str, tuple[int, str]] = {}
    previous, number, entries = "", 0, 0
    try:
        store = await store_of(core, archive)
        while True:
            async with core.database.read() as connection:
                page = await rows.segments(connection, after=number, limit=_PAGE)
            for manifest, done in page:
                if not done:
                    break
                number += 1
                try:
                    if manifest.number != number or manifest.previous != previous:
                        raise Damaged("a segment is missing before it, or another one was there")
                    await asyncio.to_thread(_check_one, store, manifest, key, ends)
                except Damaged as exc:
                    return Verdict(segments=number - 1, entries=entries, bad=number, reason=exc.reason)
                previous = manifest.digest()
                entries += manifest.entries
            if len(page) < _PAGE:
                break
    except StoreFailed as exc:
        raise Unavailable(f"the archive's store: {exc.reason}") from exc
    missing = await _beyond(core, ends)
    return Verdict(segments=number, entries=entries, bad=0 if missing else None, reason=missing)


async def _beyond(core: Core, ends: dict[str, tuple[int, str]]) -> str:
    """Return which stream was pruned further than the archive reaches, or nothing."""
    async with core.database.read() as connection:
        records = await rows.prune_records(connection)
    for record in records:
        for head in pruned_by(record.entry.detail):
            if ends.get(head.stream, (0, ""))[0] < head.number:
                return f"stream {head.stream} was pruned to entry {head.number}, which is in no segment"
    return ""


def _check_one(store: Store, manifest: Manifest, key: bytes, ends: dict[str, tuple[int, str]]) -> None:
    if not manifest.is_authentic(key):
        raise Damaged("the signature of its manifest is wrong")
    with tempfile.TemporaryFile() as file:
        if not _got(store, manifest_name(manifest), file, _MANIFEST_BYTES):
            raise Damaged("its manifest is missing")
        file.seek(0)
        try:
            kept = read_manifest(file.read())
        except ValueError as exc:
            raise Damaged("its manifest was changed") from exc
        if kept != manifest:
            raise Damaged("its manifest was changed")
    with tempfile.TemporaryFile() as file:
        if not _got(store, file_name(manifest), file, manifest.size):
            raise Damaged("its file is missing or was changed")
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != manifest.sha256:
            raise Damaged("its file was changed")
        file.seek(0)
        _check_entries(file, manifest, key)
    for part in manifest.parts:
        known = ends.get(part.stream, (0, "00" * 32))
        if known != (part.first - 1, part.base):
            raise Damaged(f"entries of stream {part.stream} before {part.first} are in no segment")
        ends[part.stream] = (part.last, part.head)


def _got(store: Store, name: str, file: IO[bytes], limit: int) -> bool:
    try:
        return store.get(name, file, limit)
    except StoreFailed as exc:
        if exc.reason.endswith("is not what was put there"):
            return False
        raise


def _check_entries(file: IO[bytes], manifest: Manifest, key: bytes) -> None:
    parts = {part.stream: part for part in manifest.parts}
    verifiers: dict[str, StreamVerifier] = {}
    count = 0
    for line in _lines(file):
        if line["type"] != "entry":
            continue
        fields = {name: line[name] for name in Entry.__struct_fields__}
        record = Record(Entry(**fields), bytes.fromhex(line["hash"]), bytes.fromhex(line["signature"]))
        stream, count = record.entry.stream, count + 1
        if stream not in parts:
            raise Damaged(f"it has entries of stream {stream}")
        verifier = verifiers.get(stream)
        if verifier is None:
            before = parts[stream].before
            signing = key if record.signature else None
            verifier = verifiers[stream] = StreamVerifier(stream, signing, before.number, before.head)
        bad = verifier.feed(record)
        if bad is not None:
            raise Damaged(f"stream {bad.stream} record {bad.number}: {bad.reason}")
    for stream, part in parts.items():
        verifier = verifiers.get(stream)
        if verifier is None or (verifier.number, verifier.head.hex()) != (part.last, part.head):
            raise Damaged(f"stream {stream} does not reach its end")
    if count != manifest.entries:
        raise Damaged("it does not have its entries")


def _lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a compressed file, in bounded memory."""
    packed, rest = zlib.decompressobj(16 + zlib.MAX_WBITS), b""
    try:
        while chunk := file.read(_CHUNK):
            while chunk:
                data = rest + packed.decompress(chunk, _LINE_BYTES)
                chunk = packed.unconsumed_tail
                *lines, rest = data.split(b"\n")
                if len(rest) > _LINE_BYTES:
                    raise Damaged("it has a line that no entry has")
                yield from map(msgspec.json.decode, lines)
    except (zlib.error, msgspec.MsgspecError) as exc:
        raise Damaged("its file cannot be read") from exc
    if rest or not packed.eof:
        raise Damaged("its file was cut")
