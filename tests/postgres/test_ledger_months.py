"""The ledger's parts by month: made ahead by whoever comes first, and no entry is without a place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from offices import Office, founded, opened

from secrethub.audit.verification import LedgerVerifier
from secrethub.crypto.keyring import Keyring
from secrethub.errors import Unavailable
from secrethub.operations.months import AHEAD, make_months
from secrethub.storage.database import Database
from secrethub.storage.ledger import Note
from secrethub.storage.ledger_read import row_pages, snapshot

_PARTS = """SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'audit_entries'::regclass ORDER BY c.relname"""


def months(ahead: int) -> list[str]:
    """Return the names of the parts that there should be."""
    now = datetime.now(UTC)
    return [
        f"audit_entries_{now.year + (now.month - 1 + n) // 12:04d}_{(now.month - 1 + n) % 12 + 1:02d}"
        for n in range(ahead + 1)
    ]


@pytest.fixture
async def keyring(database_url: str) -> Keyring:
    """The keyring of a fresh cluster."""
    return await founded(database_url)


@pytest.fixture
async def office(database_url: str, keyring: Keyring) -> AsyncIterator[Office]:
    """One process of it."""
    async with opened(database_url, keyring) as one:
        yield one


async def _write(office: Office, count: int, path: str) -> None:
    await asyncio.gather(
        *(
            office.ledger.append(
                Note(kind="request", request_id="", actor="a", operation="t", path=path, outcome="done")
            )
            for _ in range(count)
        )
    )


async def _parts(office: Office) -> list[str]:
    return [row["name"] for row in await office.sql(_PARTS)]


async def _verifies(database: Database, keyring: Keyring) -> int:
    verifier = LedgerVerifier(keyring.derived("audit-sign"))
    async with snapshot(database) as connection:
        async for rows in row_pages(connection):
            verifier.feed_rows(rows)
    report = verifier.finish()
    assert report.ok, report
    return report.entries


async def test_a_new_database_has_its_months(office: Office) -> None:
    """The schema comes with this month and those after it, and entries go where they belong."""
    assert await _parts(office) == sorted([*months(AHEAD), "audit_entries_other"])
    await _write(office, 5, "x")
    assert (await office.sql(f"SELECT count(*) AS n FROM {months(0)[0]}"))[0]["n"] == 6
    assert (await office.sql("SELECT count(*) AS n FROM audit_entries_other"))[0]["n"] == 0


async def test_many_make_the_same_months(office: Office) -> None:
    """However many processes try at once, each part is made once and nobody fails."""
    others = [Database(office.url, size=1) for _ in range(6)]
    try:
        made = await asyncio.gather(*(make_months(database, AHEAD + 2) for database in others))
    finally:
        await asyncio.gather(*(database.close() for database in others))
    assert sorted(made) == [0, 0, 0, 0, 0, 2]
    assert await _parts(office) == sorted([*months(AHEAD + 2), "audit_entries_other"])


async def test_entries_before_their_month_is_made(office: Office, keyring: Keyring) -> None:
    """Without a part for the month entries are kept all the same, and move when it is made under load."""
    database = Database(office.url, size=2)
    try:
        await office.sql(f"DROP TABLE {months(0)[0]}")
        await _write(office, 20, "early")
        assert (await office.sql("SELECT count(*) AS n FROM audit_entries_other"))[0]["n"] == 21
        assert await _verifies(database, keyring) == 21
        writing = asyncio.create_task(_write(office, 2000, "meanwhile"))
        assert await make_months(database) == 1
        await writing
        assert (await office.sql("SELECT count(*) AS n FROM audit_entries_other"))[0]["n"] == 0
        assert await _verifies(database, keyring) == 2021
    finally:
        await database.close()


async def test_whoever_reads_is_not_disturbed(office: Office) -> None:
    """While somebody reads the whole ledger nothing waits for a new part: it is made later."""
    await _write(office, 5, "x")
    database = Database(office.url, size=3)
    try:
        async with database.read() as reader, reader.transaction(isolation="repeatable_read"):
            await reader.fetch("SELECT count(*) FROM audit_entries")
            with pytest.raises(Unavailable):
                await make_months(database, AHEAD + 1)
            await _write(office, 5, "y")
        assert await make_months(database, AHEAD + 1) == 1
    finally:
        await database.close()


async def test_an_entry_is_stored_once(office: Office) -> None:
    """The same place in the same month cannot be written twice."""
    await _write(office, 3, "x")
    with pytest.raises(Exception, match="duplicate key"):
        await office.sql("INSERT INTO audit_entries SELECT * FROM audit_entries WHERE number = 2")


async def test_how_far_streams_are(office: Office) -> None:
    """With each commit it is kept how far the stream has come."""
    await _write(office, 700, "x")
    rows = await office.sql(
        """SELECT s.number, s.hash = e.hash AS same FROM audit_streams s
           JOIN audit_entries e ON e.stream = s.stream AND e.number = s.number"""
    )
    assert [(row["number"], row["same"]) for row in rows] == [(701, True)]
