"""How far sinks of the ledger have got: a place in every stream, and what is still to come.

Entries of a stream go to a sink in their order, and each is checked on its way: it must follow the one that
the sink was given before it and carry the cluster's signature. A place moves only under the newest claim of
the sink, so a process that lost its claim moves nothing any more.

Each place is authenticated. One that is not, or that is missing, is none: the sink is given the stream from
its beginning, for entries that come twice harm nobody, and those that never come do.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import msgspec

from secrethub.audit.event import GENESIS, Record, StreamHead
from secrethub.crypto.digests import equal, mac
from secrethub.crypto.keyring import Keyring
from secrethub.storage.ledger_read import record_of
from secrethub.storage.ledger_search import Found, Integrity, integrity_of

TABLE = "audit_sink_positions"
EDITED = "its place in the ledger was edited: entries come again"
MISSING = "%d entries are gone from the ledger, or never were: audit verify tells"
_PURPOSE = "audit-sinks"
_BEHIND = """FROM audit_streams s
             LEFT JOIN unnest($1::text[], $2::bigint[], $3::bytea[]) AS p(stream, number, hash)
                 ON p.stream = s.stream
             LEFT JOIN audit_pruned g ON g.stream = s.stream
             WHERE s.number > COALESCE(p.number, 0)"""


class Places(NamedTuple):
    """How far a sink has got.

    Attributes:
        held: the last entry of each stream that it was given.
        edited: streams whose place is not authentic.
    """

    held: list[StreamHead]
    edited: list[str]

    @property
    def columns(self) -> tuple[list[str], list[int], list[bytes]]:
        """Return what is held, as parameters."""
        return _columns(self.held)


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


async def begin(connection: asyncpg.Connection[Any], keyring: Keyring, sink: str) -> None:
    """Let a new sink begin at the present end of the ledger."""
    await connection.execute("INSERT INTO audit_sinks (sink) VALUES ($1) ON CONFLICT DO NOTHING", sink)
    rows = await connection.fetch("SELECT stream, number, hash FROM audit_streams")
    await _put(connection, keyring, sink, [StreamHead(*row) for row in rows])


async def sign(connection: asyncpg.Connection[Any], keyring: Keyring, sink: str) -> None:
    """Authenticate the places of a sink as they are. Once: they are from before there was a ``mac``."""
    rows = await connection.fetch(
        "SELECT stream, number, hash FROM audit_sink_positions WHERE sink = $1 AND mac IS NULL", sink
    )
    await _put(connection, keyring, sink, [StreamHead(*row) for row in rows])


async def places_of(connection: asyncpg.Connection[Any], keyring: Keyring, sink: str) -> Places:
    """Return how far a sink has got, as far as that is authentic."""
    return (await places_of_all(connection, keyring, [sink]))[sink]


async def places_of_all(
    connection: asyncpg.Connection[Any], keyring: Keyring, sinks: Sequence[str]
) -> dict[str, Places]:
    """Return how far each sink has got, as far as that is authentic."""
    key = keyring.derived(_PURPOSE)
    rows = await connection.fetch(
        "SELECT sink, stream, number, hash, mac FROM audit_sink_positions WHERE sink = ANY($1::text[])",
        list(sinks),
    )
    found = {sink: Places([], []) for sink in sinks}
    for sink, stream, number, digest, authentication in rows:
        head = StreamHead(stream, number, digest)
        if equal(_mac(key, sink, head), authentication or b""):
            found[sink].held.append(head)
        else:
            found[sink].edited.append(stream)
    return found


async def forget(connection: asyncpg.Connection[Any], sink: str) -> None:
    """Forget a sink that is no more."""
    # Its own row first, as in `moved`: so neither waits for the other's places while it has the row.
    await connection.execute("DELETE FROM audit_sinks WHERE sink = $1", sink)
    await connection.execute("DELETE FROM audit_sink_positions WHERE sink = $1", sink)
    await connection.execute("DELETE FROM locks WHERE name = $1", claim_of(sink))


def claim_of(sink: str) -> str:
    """Return the name of the lock that whoever gives a sink entries must hold."""
    return f"audit-sink/{sink}"


async def state_of(connection: asyncpg.Connection[Any], keyring: Keyring, sink: str) -> SinkState:
    """Return how a sink fares."""
    places = await places_of(connection, keyring, sink)
    behind, missing = await behind_of(connection, places), await missing_of(connection, places)
    row = await connection.fetchrow("SELECT * FROM audit_sinks WHERE sink = $1", sink)
    names = ("node", "delivered", "skipped", "delivered_at", "failed_at")
    told = {} if row is None else {name: row[name] for name in names}
    error = EDITED if places.edited else "" if row is None else row["error"]
    errors = (error, MISSING % missing if missing else "")
    return SinkState(behind=behind, error="; ".join(filter(None, errors)), **told)


async def behind_of(connection: asyncpg.Connection[Any], places: Places) -> int:
    """Return how many entries a sink was not given yet, without those that are only in the archive."""
    found = await connection.fetchval(
        f"""SELECT COALESCE(sum(s.number - LEAST(s.number, GREATEST(p.number, g.number, 0))), 0)::bigint
            {_BEHIND}""",
        *places.columns,
    )
    return int(found)


async def missing_of(connection: asyncpg.Connection[Any], places: Places) -> int:
    """Return how many entries a sink waits for in vain: beyond the last one that the ledger has of a stream.

    Somebody removed a stream's newest entries, or edited how far it goes.
    """
    found = await connection.fetchval(
        f"""SELECT COALESCE(sum(s.number - LEAST(s.number, GREATEST(s.known, e.number))), 0)::bigint
            FROM (SELECT s.stream, s.number, GREATEST(p.number, g.number, 0) AS known {_BEHIND}) AS s
            LEFT JOIN LATERAL (SELECT number FROM audit_entries WHERE stream = s.stream
                               ORDER BY number DESC LIMIT 1) AS e ON true""",  # noqa: S608 - constants of ours
        *places.columns,
    )
    return int(found)


async def following(
    connection: asyncpg.Connection[Any], key: bytes, places: Places, limit: int
) -> list[Found]:
    """Return the next entries for a sink, of all streams in the order of time, of each in its own order.

    Args:
        connection: for reading.
        key: signs the entries.
        places: how far the sink has got.
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
                      ORDER BY number LIMIT $4) AS a) AS e
            ORDER BY e.turn, e.stream, e.number LIMIT $4""",  # noqa: S608 - constants of ours
        *places.columns,
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
    keyring: Keyring,
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
        keyring: authenticates the places.
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
    await _put(connection, keyring, sink, heads)
    return True


async def _put(
    connection: asyncpg.Connection[Any], keyring: Keyring, sink: str, heads: Sequence[StreamHead]
) -> None:
    key = keyring.derived(_PURPOSE)
    await connection.execute(
        """INSERT INTO audit_sink_positions
           SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bytea[], $5::bytea[])
           ON CONFLICT (sink, stream) DO UPDATE
           SET number = excluded.number, hash = excluded.hash, mac = excluded.mac""",
        sink,
        *_columns(heads),
        [_mac(key, sink, head) for head in heads],
    )


def _columns(heads: Sequence[StreamHead]) -> tuple[list[str], list[int], list[bytes]]:
    return [head.stream for head in heads], [head.number for head in heads], [head.head for head in heads]


def _mac(key: bytes, sink: str, head: StreamHead) -> bytes:
    return mac(key, "audit-sink-place", sink, head.stream, head.number, head.head)


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
    connection: asyncpg.Connection[Any], places: Places, before: int
) -> tuple[list[StreamHead], int]:
    """Return where a sink goes on when it leaves out entries older than an instant, and how many these are.

    Args:
        connection: for reading.
        places: how far the sink has got.
        before: microseconds since the epoch.
    """
    rows = await connection.fetch(
        f"""SELECT place.stream, e.number, e.hash, e.number - place.number AS count
            FROM (SELECT s.stream, COALESCE(p.number, 0) AS number {_BEHIND}) AS place
            CROSS JOIN LATERAL (
                SELECT number, hash FROM audit_entries
                WHERE stream = place.stream AND number > place.number AND at < $4
                ORDER BY number DESC LIMIT 1) AS e""",  # noqa: S608 - constants of ours
        *places.columns,
        before,
    )
    heads = [StreamHead(row["stream"], row["number"], row["hash"]) for row in rows]
    return heads, sum(row["count"] for row in rows)
