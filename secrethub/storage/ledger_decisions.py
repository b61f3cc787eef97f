"""Requests that were decided, from the ledger, in the order of time."""

from __future__ import annotations

from typing import NamedTuple

from secrethub.audit.event import Entry
from secrethub.storage.database import Database
from secrethub.storage.ledger_read import record_of


class Place(NamedTuple):
    """A place in the order of time: microseconds since the epoch, and which entry of that instant."""

    at: int
    stream: str = ""
    number: int = 0


async def decided(database: Database, after: Place, until: int, actor: str, limit: int) -> list[Entry]:
    """Return entries of requests by somebody known, oldest first: reads, and the intents of changes.

    Args:
        database: where the ledger is.
        after: what was looked at already.
        until: microseconds since the epoch; entries before it.
        actor: how their actor begins; empty for anybody.
        limit: of entries.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            """SELECT * FROM audit_entries
               WHERE at >= $1 AND at < $2 AND (at, stream, number) > ($1, $3, $4)
                   AND kind IN ('request', 'intent') AND actor LIKE '%:%' AND starts_with(actor, $5)
               ORDER BY at, stream, number LIMIT $6""",
            after.at,
            until,
            after.stream,
            after.number,
            actor,
            limit,
        )
    return [record_of(row).entry for row in rows]
