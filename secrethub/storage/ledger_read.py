"""The reading side of the ledger: every record, stream by stream, in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from secrethub.audit.event import Entry, Record, Row, StreamHead, record_from
from secrethub.audit.stream_claims import pruned_by
from secrethub.clock import micros
from secrethub.storage.database import Database

_PAGE = 2000
_COUNTED = 1_000_000

_MOST_OF_ONE = 100

_COLUMNS = """SELECT stream, number, at, kind, request_id, actor, operation, path, outcome, reason, client,
                    door, detail, hash, signature
              FROM audit_entries"""
_SELECT = f"""{_COLUMNS} WHERE (stream, number) > ($1, $2)
              ORDER BY stream, number FETCH FIRST ($3) ROWS WITH TIES"""
"""With ties: what somebody put beside the last entry of a page, into another part, is not passed over."""


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Lend a connection that sees the ledger, with its checkpoints, as of one instant.

    Without it a stream opened meanwhile may speak of entries that an earlier page did not have yet.

    Raises:
        Unavailable: the database does not answer, or the reader pauses for longer than 5 seconds.
    """
    async with (
        database.read() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


async def row_pages(connection: asyncpg.Connection[Any]) -> AsyncIterator[list[Row]]:
    """Return the whole ledger as rows, in pages, ordered by stream and number."""
    stream, number = "", -(1 << 62)
    while True:
        rows = [tuple(row) for row in await connection.fetch(_SELECT, stream, number, _PAGE)]
        if not rows:
            return
        yield rows
        stream, number = rows[-1][0], rows[-1][1]


async def entries_naming(
    connection: asyncpg.Connection[Any], table: str, *, signed: bool = False
) -> AsyncIterator[tuple[str, int, int, str]]:
    """Yield stream, number, instant and detail of entries that may speak of a table (``audit/state.py``).

    Args:
        connection: for reading.
        table: whose rows.
        signed: whether entries that were written without a key are left out.
    """
    stream, number = "", -(1 << 62)
    while True:
        rows = await connection.fetch(
            """SELECT stream, number, at, CASE WHEN strpos(detail, $3) > 0 THEN detail END AS detail,
                      signature <> ''::bytea AS signed
               FROM audit_entries WHERE (stream, number) > ($1, $2) ORDER BY stream, number LIMIT $4""",
            stream,
            number,
            f'"table":"{table}"',
            _PAGE,
        )
        if not rows:
            return
        for row in rows:
            if row["detail"] is not None and (row["signed"] or not signed):
                yield row["stream"], row["number"], row["at"], row["detail"]
        stream, number = rows[-1]["stream"], rows[-1]["number"]


async def present(connection: asyncpg.Connection[Any], now: datetime) -> int:
    """Return the present in microseconds since the epoch, by the clock of two that is behind.

    What leaves by its age must not leave because one clock is ahead.

    Args:
        connection: for reading.
        now: by this process's clock; the other one is the database's.
    """
    return int(
        await connection.fetchval(
            "SELECT LEAST($1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)", micros(now)
        )
    )


async def pruned(connection: asyncpg.Connection[Any]) -> list[StreamHead]:
    """Return up to where streams are pruned, as entries say that are not verified yet."""
    rows = await connection.fetch("SELECT detail FROM audit_entries WHERE kind = 'prune'")
    return [head for row in rows for head in pruned_by(row["detail"])]


async def pages_of(connection: asyncpg.Connection[Any]) -> AsyncIterator[list[Record]]:
    """Return the whole ledger in pages, ordered by stream and number, in the snapshot that the caller has."""
    async for rows in row_pages(connection):
        yield [record_from(row) for row in rows]


async def refusals(database: Database, request_id: str) -> list[Record]:
    """Return the entries that say how one request was refused or failed, oldest first.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            f"""{_COLUMNS} WHERE request_id = $1 AND outcome IN ('denied', 'refused', 'failed')
                ORDER BY at, stream, number LIMIT $2""",
            request_id,
            _MOST_OF_ONE,
        )
    return [record_of(row) for row in rows]


async def count(database: Database) -> int:
    """Return about how many records there are, for progress; a large ledger is not counted for that."""
    async with database.read() as connection:
        about = await connection.fetchval(
            """SELECT COALESCE(sum(GREATEST(c.reltuples, 0)), 0)::bigint FROM pg_inherits i
               JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_entries'::regclass"""
        )
        if about > _COUNTED:
            return int(about)
        return int(await connection.fetchval("SELECT count(*) FROM audit_entries"))


def record_of(row: Any) -> Record:
    """Return the record of a row of ``audit_entries``."""
    return Record(
        Entry(
            stream=row["stream"],
            number=row["number"],
            at=row["at"],
            kind=row["kind"],
            request_id=row["request_id"],
            actor=row["actor"],
            operation=row["operation"],
            path=row["path"],
            outcome=row["outcome"],
            reason=row["reason"],
            client=row["client"],
            door=row["door"],
            detail=row["detail"],
        ),
        row["hash"],
        row["signature"],
    )
