"""How far sinks of the ledger have got: a place in every stream, and what is still to come.

Entries of a stream go to a sink in their order, and each is checked on its way: it must follow the one that
the sink was given before it and carry the cluster's signature. A place moves only under the newest claim of
the sink, so a process that lost its claim moves nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from secrethub.audit.event import GENESIS, Record, StreamHead
from secrethub.storage.ledger_read import record_of
from secrethub.storage.ledger_search import Found, Integrity, integrity_of

_BEHIND = """FROM audit_streams s
             LEFT JOIN audit_sink_positions p ON p.sink = $1 AND p.stream = s.stream
             WHERE s.number > COALESCE(p.number, 0)"""


class SinkState(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink fares.

    Attributes:
        behind: entries that it was not given yet.
        node: which node gave it entries last.
        delivered: entries that it was given so far, some perhaps twice.
        skipped: entries that it will never be given, because it was too far behind.
        delivered_at: when it took something last.
        failed_at: since when it takes nothing, or None.
        error: why.
    """

    behind: int
    node: str = ""
    delivered: int = 0
    skipped: int = 0
    delivered_at: datetime | None = None
    failed_at: datetime | None = None
    error: str = ""


async def begin(connection: asyncpg.Connection[Any], sink: str) -> None:
    """Let a new sink begin at the present end of the ledger."""
    await connection.execute("INSERT INTO audit_sinks (sink) VALUES ($1) ON CONFLICT DO NOTHING", sink)
    await connection.execute(
        """INSERT INTO audit_sink_positions SELECT $1, stream, number, hash FROM audit_streams
           ON CONFLICT DO NOTHING""",
        sink,
    )


async def forget(connection: asyncpg.Connection[Any], sink: str) -> None:
    """Forget a sink that is no more."""
    # Its own row first, as in `moved`: so neither waits for the other's places while it has the row.
    await connection.execute("DELETE FROM audit_sinks WHERE sink = $1", sink)
    await connection.execute("DELETE FROM audit_sink_positions WHERE sink = $1", sink)
    await connection.execute("DELETE FROM locks WHERE name = $1", claim_of(sink))


def claim_of(sink: str) -> str:
    """Return the name of the lock that whoever gives a sink entries must hold."""
    return f"audit-sink/{sink}"


async def state_of(connection: asyncpg.Connection[Any], sink: str) -> SinkState:
    """Return how a sink fares."""
    behind = await behind_of(connection, sink)
    row = await connection.fetchrow("SELECT * FROM audit_sinks WHERE sink = $1", sink)
    if row is None:
        return SinkState(behind=behind)
    names = ("node", "delivered", "skipped", "delivered_at", "failed_at", "error")
    return SinkState(behind=behind, **{name: row[name] for name in names})


async def behind_of(connection: asyncpg.Connection[Any], sink: str) -> int:
    """Return how many entries a sink was not given yet."""
    found = await connection.fetchval(
        f"SELECT COALESCE(sum(s.number - COALESCE(p.number, 0)), 0)::bigint {_BEHIND}",
        sink,
    )
    return int(found)


async def following(connection: asyncpg.Connection[Any], key: bytes, sink: str, limit: int) -> list[Found]:
    """Return the next entries for a sink, of all streams in the order of time, of each in its own order.

    Args:
        connection: for reading.
        key: signs the entries.
        sink: UUID.
        limit: entries at most.
    """
    # A clock may go back: then an entry comes when the one before it does.
    rows = await connection.fetch(
        f"""SELECT e.* FROM (
                SELECT s.stream, COALESCE(p.number, 0) AS number, p.hash {_BEHIND}) AS place
            CROSS JOIN LATERAL (
                SELECT a.*, place.hash AS given, place.number AS given_number,
                       max(a.at) OVER (ORDER BY a.number) AS turn
                FROM (SELECT * FROM audit_entries WHERE stream = place.stream AND number > place.number
                      ORDER BY number LIMIT $2) AS a) AS e
            ORDER BY e.turn, e.stream, e.number LIMIT $2""",  # noqa: S608 - constants of ours
        sink,
        limit,
    )
    last: dict[str, tuple[int, bytes]] = {}
    found = []
    for row in rows:
        record = record_of(row)
        entry = record.entry
        number, digest = last.get(entry.stream, (row["given_number"], row["given"] or GENESIS))
        previous = digest if entry.number == number + 1 else None
        found.append(Found(record, _integrity(record, previous, key)))
        last[entry.stream] = (entry.number, record.hash)
    return found


def _integrity(record: Record, previous: bytes | None, key: bytes) -> Integrity:
    if record.entry.number == 1 and previous != GENESIS:
        return "broken"
    return integrity_of(record, previous, key)


async def moved(
    connection: asyncpg.Connection[Any],
    sink: str,
    fencing: int,
    node: str,
    heads: Sequence[StreamHead],
    *,
    delivered: int = 0,
    skipped: int = 0,
) -> bool:
    """Move a sink's places on, in the caller's transaction; False when somebody else has claimed it.

    Args:
        connection: for writing.
        sink: UUID.
        fencing: number of the claim.
        node: which has it.
        heads: the last entry of each stream that it was given.
        delivered: how many it was given.
        skipped: how many were left out.
    """
    claimed = await connection.fetchval(
        """UPDATE audit_sinks SET fencing = $2, node = $3, delivered = delivered + $4, skipped = skipped + $5,
               delivered_at = CASE WHEN $4 > 0 THEN clock_timestamp() ELSE delivered_at END,
               failed_at = NULL, error = ''
           WHERE sink = $1 AND fencing <= $2 RETURNING true""",
        sink,
        fencing,
        node,
        delivered,
        skipped,
    )
    if not claimed:
        return False
    await connection.execute(
        """INSERT INTO audit_sink_positions
           SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bytea[])
           ON CONFLICT (sink, stream) DO UPDATE SET number = excluded.number, hash = excluded.hash""",
        sink,
        [head.stream for head in heads],
        [head.number for head in heads],
        [head.head for head in heads],
    )
    return True


async def failed(connection: asyncpg.Connection[Any], sink: str, fencing: int, node: str, error: str) -> None:
    """Note why a sink takes nothing."""
    await connection.execute(
        """UPDATE audit_sinks SET fencing = $2, node = $3, error = $4,
               failed_at = COALESCE(failed_at, clock_timestamp())
           WHERE sink = $1 AND fencing <= $2""",
        sink,
        fencing,
        node,
        error,
    )


async def overdue(
    connection: asyncpg.Connection[Any], sink: str, before: int
) -> tuple[list[StreamHead], int]:
    """Return where a sink goes on when it leaves out entries older than an instant, and how many these are.

    Args:
        connection: for reading.
        sink: UUID.
        before: microseconds since the epoch.
    """
    rows = await connection.fetch(
        f"""SELECT place.stream, e.number, e.hash, e.number - place.number AS count
            FROM (SELECT s.stream, COALESCE(p.number, 0) AS number {_BEHIND}) AS place
            CROSS JOIN LATERAL (
                SELECT number, hash FROM audit_entries
                WHERE stream = place.stream AND number > place.number AND at < $2
                ORDER BY number DESC LIMIT 1) AS e""",  # noqa: S608 - constants of ours
        sink,
        before,
    )
    heads = [StreamHead(row["stream"], row["number"], row["hash"]) for row in rows]
    return heads, sum(row["count"] for row in rows)
