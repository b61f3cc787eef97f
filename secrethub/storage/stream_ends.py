"""Where streams end: what is kept of that (``audit_streams``), compared with the entries themselves.

Both are written in one commit, so they agree in every snapshot. What is kept proves nothing, but sinks and
the notary look where it says: who lowers or removes it hides a stream's newest entries from them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import asyncpg

TABLE = "audit_streams"

_PAGE = 500
# Each stream costs a look into the index of every part, however many entries it has.
_ENDS = """
WITH RECURSIVE names (stream, place) AS (
    (SELECT stream, 1 FROM audit_entries WHERE stream > $1 ORDER BY stream LIMIT 1)
    UNION ALL
    SELECT (SELECT e.stream FROM audit_entries e WHERE e.stream > names.stream ORDER BY e.stream LIMIT 1),
           place + 1
    FROM names WHERE names.stream IS NOT NULL AND place < $2)
SELECT names.stream, last.number, last.hash, last.signature,
       (kept.number, kept.hash) IS NOT DISTINCT FROM (last.number, last.hash)
           OR COALESCE(kept.number > last.number, false) AS agrees
FROM names
CROSS JOIN LATERAL (
    SELECT number, hash, signature FROM audit_entries
    WHERE stream = names.stream ORDER BY number DESC LIMIT 1) AS last
LEFT JOIN audit_streams AS kept ON kept.stream = names.stream
ORDER BY names.stream"""


class End(NamedTuple):
    """The newest entry of a stream."""

    stream: str
    number: int
    hash: bytes
    signature: bytes


async def hidden(connection: asyncpg.Connection[Any], most: int = _PAGE) -> AsyncIterator[list[End]]:
    """Yield, page by page, where streams end of which something else is kept, or nothing.

    That more is kept of a stream than there is hides nothing: its newest entries were removed, which
    checkpoints tell.

    Args:
        connection: for reading.
        most: streams of a page.
    """
    after = ""
    while True:
        rows = await connection.fetch(_ENDS, after, most)
        yield [End(*row[:4]) for row in rows if not row["agrees"]]
        if len(rows) < most:
            return
        after = rows[-1]["stream"]


async def put_right(connection: asyncpg.Connection[Any], ends: Sequence[End]) -> None:
    """Keep where streams end, in the caller's transaction; one that went on meanwhile stays as it is."""
    await connection.execute(
        """INSERT INTO audit_streams AS kept
           SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[])
           ON CONFLICT (stream) DO UPDATE
           SET number = excluded.number, hash = excluded.hash, signature = excluded.signature
           WHERE kept.number <= excluded.number""",
        *(list(column) for column in zip(*ends, strict=True)),
    )
