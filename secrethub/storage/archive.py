"""Which entries are archived together, and how they leave the ledger.

A segment is planned before anything else: the beginnings of streams, as far as all of it is older than an
instant. The plan stays until those entries are gone, so that whoever goes on after a crash does the
same again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from secrethub.audit.event import GENESIS, Record, StreamHead
from secrethub.audit.segment import FORMAT, Manifest, Part, read_manifest
from secrethub.audit.stream_claims import claims_of, pruned_by
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure
from secrethub.storage.ledger_read import record_of
from secrethub.storage.ledger_search import integrity_of
from secrethub.storage.sinks import places_of_all

_PAGE = 1000
_EVER = -(1 << 63)
_TABLE = "audit_segments"
# Where streams that were signed begin, without reading what comes after it.
_FIRST = """
WITH RECURSIVE names (stream) AS (
    (SELECT stream FROM audit_entries ORDER BY stream LIMIT 1)
    UNION ALL
    SELECT (SELECT e.stream FROM audit_entries e WHERE e.stream > names.stream ORDER BY e.stream LIMIT 1)
    FROM names WHERE names.stream IS NOT NULL)
SELECT min(first.at) FROM names
CROSS JOIN LATERAL (
    SELECT at, signature FROM audit_entries WHERE stream = names.stream ORDER BY number LIMIT 1) AS first
WHERE first.at < $1 AND first.signature <> ''::bytea"""


async def segments(
    connection: asyncpg.Connection[Any], *, after: int = 0, limit: int = 100
) -> list[tuple[Manifest, bool]]:
    """Return manifests in order, each with whether its entries are gone from the ledger.

    Raises:
        IntegrityFailure: one cannot be read.
    """
    rows = await connection.fetch(
        "SELECT number, pruned, manifest FROM audit_segments WHERE number > $1 ORDER BY number LIMIT $2",
        after,
        limit,
    )
    return [(_manifest(row), row["pruned"]) for row in rows]


async def newest(connection: asyncpg.Connection[Any]) -> tuple[Manifest, bool] | None:
    """Return the newest manifest and whether its entries are gone, or None."""
    row = await connection.fetchrow(
        "SELECT number, pruned, manifest FROM audit_segments ORDER BY number DESC LIMIT 1"
    )
    return None if row is None else (_manifest(row), row["pruned"])


async def pruned_until(connection: asyncpg.Connection[Any]) -> int:
    """Return the instant of the newest entry that is only in the archive, 0 when there is none.

    Raises:
        IntegrityFailure: the manifest cannot be read.
    """
    row = await connection.fetchrow(
        "SELECT number, manifest FROM audit_segments WHERE pruned ORDER BY number DESC LIMIT 1"
    )
    return 0 if row is None else _manifest(row).until


async def plan(
    connection: asyncpg.Connection[Any], *, cluster_id: str, key: bytes, now: int, before: int, most: int
) -> Manifest | None:
    """Write down the next segment, in the caller's transaction, and return it; None when there is none.

    Args:
        connection: for writing.
        cluster_id: UUID of the cluster.
        key: signs entries.
        now: microseconds since the epoch.
        before: only entries older than this.
        most: entries, give or take a group.

    Raises:
        IntegrityFailure: a stream's beginning is missing.
    """
    last = await newest(connection)
    parts = await _oldest(connection, before, most, key)
    if not parts:
        return None
    bounds = await connection.fetchrow(
        f"SELECT min(e.at) AS since, max(e.at) AS until {_OF_PARTS}", *_columns(parts)
    )
    assert bounds is not None
    manifest = Manifest(
        format=FORMAT,
        cluster_id=cluster_id,
        number=1 if last is None else last[0].number + 1,
        planned_at=now,
        since=bounds["since"],
        until=bounds["until"],
        entries=sum(part.last - part.first + 1 for part in parts),
        size=0,
        sha256="",
        previous="" if last is None else last[0].digest(),
        parts=tuple(parts),
    )
    await connection.execute(
        "INSERT INTO audit_segments (number, manifest) VALUES ($1, $2)",
        manifest.number,
        manifest.encoded().decode(),
    )
    return manifest


_OF_PARTS = """FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS part(stream, first, last)
               JOIN audit_entries e ON e.stream = part.stream AND e.number BETWEEN part.first AND part.last"""


def _columns(parts: Sequence[Part]) -> tuple[list[str], list[int], list[int]]:
    return [p.stream for p in parts], [p.first for p in parts], [p.last for p in parts]


async def _oldest(connection: asyncpg.Connection[Any], before: int, most: int, key: bytes) -> list[Part]:
    """Return what streams begin with: the oldest of what is older than ``before``, about ``most`` entries."""
    nth = "SELECT at FROM audit_entries WHERE at >= $1 AND at < $2 ORDER BY at OFFSET $3 LIMIT 1"
    until = await connection.fetchval(nth, _EVER, before, most)
    if until is None:
        return await _whole(connection, before, most, key)
    parts = await _whole(connection, until, most, key)
    if parts:
        return parts
    # The oldest come after younger ones of their streams, as a clock was ahead; or they belong together.
    first = await connection.fetchval(_FIRST, before)
    if first is None:
        return []
    until = await connection.fetchval(nth, first, before, most)
    return await _whole(connection, before if until is None else max(until, first + 1), most, key)


async def _whole(connection: asyncpg.Connection[Any], before: int, most: int, key: bytes) -> list[Part]:
    """Return of each stream what it begins with, as far as it may go."""
    parts = await _adopted(connection, await _parts(connection, before, most), key)
    return await _with_what_is_adopted(connection, parts)


async def _parts(connection: asyncpg.Connection[Any], before: int, most: int) -> list[Part]:
    """Return of each stream what it begins with, as far as all of that is older than ``before``.

    At most so many entries, but of a stream without signatures all: a signed entry vouches for its end.
    """
    rows = await connection.fetch(
        """SELECT s.stream, s.first, s.last, e.hash AS head, p.number AS pruned, p.hash AS base
           FROM (SELECT b.stream, b.first,
                        CASE WHEN (SELECT signature FROM audit_entries
                                   WHERE stream = b.stream AND number = b.first LIMIT 1) = ''::bytea
                             THEN b.last ELSE LEAST(b.last, b.first + $2 - 1) END AS last FROM (
                 SELECT o.stream,
                        (SELECT min(number) FROM audit_entries WHERE stream = o.stream) AS first,
                        COALESCE((SELECT number FROM audit_entries WHERE stream = o.stream AND at >= $1
                                  ORDER BY number LIMIT 1) - 1,
                                 (SELECT max(number) FROM audit_entries WHERE stream = o.stream)) AS last
                 FROM (SELECT DISTINCT stream FROM audit_entries WHERE at < $1) AS o) AS b) AS s
           JOIN audit_entries e ON e.stream = s.stream AND e.number = s.last
           LEFT JOIN audit_pruned p ON p.stream = s.stream
           WHERE s.first <= s.last ORDER BY s.stream""",
        before,
        most,
    )
    parts = []
    for row in rows:
        gone = row["pruned"] or 0
        if row["first"] != gone + 1:
            raise IntegrityFailure("audit_entries", f"{row['stream']} {gone + 1}", "the entry is missing")
        base = row["base"] or GENESIS
        parts.append(
            Part(
                stream=row["stream"],
                first=row["first"],
                last=row["last"],
                base=base.hex(),
                head=row["head"].hex(),
            )
        )
    return parts


async def _adopted(connection: asyncpg.Connection[Any], parts: list[Part], key: bytes) -> list[Part]:
    """Leave out parts without signatures, but for those whose end a signed entry vouches for."""
    rows = await connection.fetch(
        f"SELECT e.stream {_OF_PARTS} WHERE e.number = part.last AND e.signature = ''::bytea",
        *_columns(parts),
    )
    keyless = {row["stream"] for row in rows}
    if not keyless:
        return parts
    rows = await connection.fetch(
        """SELECT e.*, COALESCE(b.hash, p.hash) AS previous FROM audit_entries e
           LEFT JOIN audit_entries b ON b.stream = e.stream AND b.number = e.number - 1
           LEFT JOIN audit_pruned p ON p.stream = e.stream AND p.number = e.number - 1
           WHERE e.kind = 'adopt'"""
    )
    vouched = {
        (claim.stream, claim.number, claim.head)
        for row in rows
        if integrity_of(record_of(row), row["previous"], key) == "ok"
        for claim in claims_of(record_of(row).entry)
    }
    return [p for p in parts if p.stream not in keyless or (p.stream, p.last, p.head) in vouched]


async def _with_what_is_adopted(connection: asyncpg.Connection[Any], parts: list[Part]) -> list[Part]:
    """End a stream's part before an entry that adopts what is left in the ledger: that still needs it."""
    rows = await connection.fetch(
        f"SELECT e.* {_OF_PARTS} WHERE e.kind = 'adopt' ORDER BY e.stream, e.number DESC", *_columns(parts)
    )
    reach = {part.stream: part.last for part in parts}
    ends: dict[str, int] = {}
    for row in rows:
        entry = record_of(row).entry
        for claim in claims_of(entry):
            left = await connection.fetchval(
                """SELECT EXISTS (SELECT 1 FROM audit_entries
                                  WHERE stream = $1 AND number > $2 AND number <= $3)""",
                claim.stream,
                reach.get(claim.stream, 0),
                claim.number,
            )
            if left:
                ends[entry.stream] = entry.number - 1
    kept = []
    for part in parts:
        last = ends.get(part.stream, part.last)
        if last < part.first:
            continue
        head = part.head
        if last != part.last:
            digest = await connection.fetchval(
                "SELECT hash FROM audit_entries WHERE stream = $1 AND number = $2", part.stream, last
            )
            head = digest.hex()
        kept.append(Part(stream=part.stream, first=part.first, last=last, base=part.base, head=head))
    return kept


async def records_of(connection: asyncpg.Connection[Any], part: Part) -> AsyncIterator[list[Record]]:
    """Return a part's records in pages."""
    number = part.first - 1
    while number < part.last:
        rows = await connection.fetch(
            """SELECT * FROM audit_entries WHERE stream = $1 AND number > $2 AND number <= $3
               ORDER BY number LIMIT $4""",
            part.stream,
            number,
            part.last,
            _PAGE,
        )
        if not rows:
            return
        yield [record_of(row) for row in rows]
        number = rows[-1]["number"]


def restated(records: Sequence[Record], parts: Sequence[Part]) -> list[StreamHead]:
    """Return up to where streams are removed, also what removed entries have said of that before.

    Args:
        records: the ``prune`` entries among those that go.
        parts: what goes.
    """
    ends: dict[str, StreamHead] = {}
    heads = [head for record in records for head in pruned_by(record.entry.detail)]
    for head in [*heads, *(part.end for part in parts)]:
        if head.stream not in ends or head.number > ends[head.stream].number:
            ends[head.stream] = head
    return sorted(ends.values(), key=lambda head: head.stream)


async def behind(
    connection: asyncpg.Connection[Any], keyring: Keyring, sinks: Sequence[str], parts: Sequence[Part]
) -> list[str]:
    """Return those of the sinks (UUIDs) that were not given all of these entries yet."""
    found = []
    for sink, places in (await places_of_all(connection, keyring, sinks)).items():
        given = {head.stream: head.number for head in places.held}
        if any(given.get(part.stream, 0) < part.last for part in parts):
            found.append(sink)
    return found


async def prune(connection: asyncpg.Connection[Any], manifest: Manifest) -> None:
    """Remove a segment's entries in the caller's transaction.

    Raises:
        IntegrityFailure: there are not as many of them as there were.
    """
    open_ = await connection.fetchval(
        "SELECT NOT pruned FROM audit_segments WHERE number = $1 FOR UPDATE", manifest.number
    )
    if not open_:
        return
    columns = _columns(manifest.parts)
    gone = await connection.fetchval(
        """WITH gone AS (
               DELETE FROM audit_entries e
               USING unnest($1::text[], $2::bigint[], $3::bigint[]) AS part(stream, first, last)
               WHERE e.stream = part.stream AND e.number BETWEEN part.first AND part.last RETURNING 1)
           SELECT count(*) FROM gone""",
        *columns,
    )
    if gone != manifest.entries:
        raise IntegrityFailure(_TABLE, str(manifest.number), "its entries are not those that were archived")
    await connection.execute(
        """INSERT INTO audit_pruned SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[])
           ON CONFLICT (stream) DO UPDATE SET number = excluded.number, hash = excluded.hash""",
        columns[0],
        columns[2],
        [part.end.head for part in manifest.parts],
    )
    await connection.execute(
        "UPDATE audit_segments SET pruned = true, manifest = $2 WHERE number = $1",
        manifest.number,
        manifest.encoded().decode(),
    )


async def bases(connection: asyncpg.Connection[Any]) -> dict[str, StreamHead]:
    """Return where streams begin that do not begin with their first entry."""
    rows = await connection.fetch("SELECT stream, number, hash FROM audit_pruned")
    return {row["stream"]: StreamHead(row["stream"], row["number"], row["hash"]) for row in rows}


async def prune_records(connection: asyncpg.Connection[Any]) -> list[Record]:
    """Return the ledger's ``prune`` entries."""
    rows = await connection.fetch("SELECT * FROM audit_entries WHERE kind = 'prune' ORDER BY stream, number")
    return [record_of(row) for row in rows]


def _manifest(row: Any) -> Manifest:
    try:
        manifest = read_manifest(row["manifest"].encode())
    except ValueError as exc:
        raise IntegrityFailure(_TABLE, str(row["number"]), "it cannot be read") from exc
    if manifest.number != row["number"]:
        raise IntegrityFailure(_TABLE, str(row["number"]), "it is another one's")
    return manifest
