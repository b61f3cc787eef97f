"""The writing side of the ledger on a real database: order, groups, failures, and what is said of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from offices import ROWS, Office, founded, opened, until
from socket_proxy import Proxy, proxied

from secrethub.audit.verification import LedgerReport, LedgerVerifier
from secrethub.crypto.keyring import Keyring
from secrethub.errors import Sealed, Unavailable
from secrethub.storage.database import Database
from secrethub.storage.freshness import Caches
from secrethub.storage.ledger import Ledger, Note
from secrethub.storage.ledger_read import row_pages, snapshot
from secrethub.storage.sealed_stream import SealedStream


@pytest.fixture
async def keyring(database_url: str) -> Keyring:
    """The keyring of a fresh cluster."""
    return await founded(database_url)


@pytest.fixture
async def office(database_url: str, keyring: Keyring) -> AsyncIterator[Office]:
    """One process of it."""
    async with opened(database_url, keyring) as one:
        yield one


def note(path: str, **fields: Any) -> Note:
    """An entry about a read of ``path``."""
    return Note(
        kind="request", request_id="", actor="a", operation="test.read", path=path, outcome="done", **fields
    )


@contextlib.asynccontextmanager
async def odd(office: Office, keyring: Keyring, wall: Callable[[], float]) -> AsyncIterator[Ledger]:
    """Another process's ledger, by a clock of its own."""
    key = keyring.derived("audit-sign")
    ledger = Ledger(office.database, Caches(), node="n", process="odd", key=lambda: key, wall=wall)
    ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


async def verdict(url: str, keyring: Keyring) -> LedgerReport:
    """Recompute the whole ledger."""
    verifier = LedgerVerifier(keyring.derived("audit-sign"))
    database = Database(url, size=1)
    try:
        async with snapshot(database) as connection:
            async for rows in row_pages(connection):
                verifier.feed_rows(rows)
    finally:
        await database.close()
    return verifier.finish()


async def stored(office: Office) -> list[tuple[str, int, str, str]]:
    """Return (stream, number, kind, path) of what processes wrote, stream by stream in order."""
    rows = await office.sql(
        """SELECT stream, number, kind, path, min(at) OVER (PARTITION BY stream) AS began
           FROM audit_entries WHERE signature <> ''::bytea ORDER BY began, stream, number"""
    )
    return [(row["stream"], row["number"], row["kind"], row["path"]) for row in rows]


async def test_order_and_groups(office: Office, keyring: Keyring) -> None:
    """Entries stand in the order in which they were given, without gaps, many in one transaction."""
    await asyncio.gather(*(office.ledger.append(note(f"p{n}")) for n in range(1000)))
    found = await stored(office)
    assert [number for _, number, _, _ in found] == list(range(1, 1002))
    assert [path for _, _, kind, path in found if kind == "request"] == [f"p{n}" for n in range(1000)]
    assert len({stream for stream, *_ in found}) == 1
    commits = await office.sql("SELECT count(DISTINCT xmin::text) AS n FROM audit_entries")
    assert commits[0]["n"] <= 10
    assert office.ledger.entries == 1001
    assert (await verdict(office.url, keyring)).ok


async def test_streams_of_two_processes(database_url: str, keyring: Keyring, office: Office) -> None:
    """Each process has its own stream; the later one names where the earlier one stood."""
    await office.ledger.append(note("first"))
    async with opened(database_url, keyring) as other:
        await asyncio.gather(*(one.ledger.append(note(f"{n}")) for n in range(50) for one in (office, other)))
    found = await stored(office)
    assert len({stream for stream, *_ in found}) == 2
    assert found[-1][2] == "close"
    details = await office.sql("SELECT detail FROM audit_entries WHERE kind = 'open' ORDER BY at")
    follows = json.loads(details[-1]["detail"])["follows"]
    assert follows["stream"] == found[0][0]
    report = await verdict(database_url, keyring)
    assert report.ok
    await office.sql(
        "DELETE FROM audit_entries WHERE stream = $1 AND number >= $2", follows["stream"], follows["number"]
    )
    cut = await verdict(database_url, keyring)
    assert cut.first_bad is not None
    assert (cut.first_bad.stream, cut.first_bad.reason) == (follows["stream"], "truncated")


async def test_what_a_clock_dated_ahead(database_url: str, keyring: Keyring, office: Office) -> None:
    """A new stream names the newest entry there is, and not one that a clock dated far ahead."""
    async with odd(office, keyring, lambda: time.time() + 1e7) as ahead:
        await ahead.append(note("ahead"))
        await office.ledger.append(note("last"))
        async with opened(database_url, keyring) as other:
            await other.ledger.append(note("next"))
    (follows,) = await office.sql(
        """SELECT l.stream, l.number, o.detail FROM audit_entries n
           JOIN audit_entries o ON o.stream = n.stream AND o.kind = 'open'
           JOIN audit_entries l ON l.path = 'last' WHERE n.path = 'next'"""
    )
    said = json.loads(follows["detail"])["follows"]
    assert (said["stream"], said["number"]) == (follows["stream"], follows["number"])


async def test_a_failed_group_leaves_no_gap(office: Office, keyring: Keyring) -> None:
    """When a group cannot be stored all in it are refused, and the next stream says what was lost."""
    await office.ledger.append(note("before"))
    await office.sql(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'no room'; END $$"""
    )
    await office.sql(
        """CREATE TRIGGER refuse BEFORE INSERT ON audit_entries FOR EACH ROW
           WHEN (NEW.path = 'poison') EXECUTE FUNCTION refuse()"""
    )
    results = await asyncio.gather(
        office.ledger.append(note("good")), office.ledger.append(note("poison")), return_exceptions=True
    )
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    await office.ledger.append(note("after"))
    found = await stored(office)
    assert [(number, kind, path) for _, number, kind, path in found] == [
        (1, "open", ""),
        (2, "request", "before"),
        (1, "open", ""),
        (2, "lost", ""),
        (3, "request", "after"),
    ]
    lost = json.loads((await office.sql("SELECT detail FROM audit_entries WHERE kind = 'lost'"))[0]["detail"])
    assert (lost["stream"], lost["first"], lost["last"]) == (found[0][0], 3, 4)
    assert (await verdict(office.url, keyring)).ok


@pytest.fixture
async def behind(database_url: str, keyring: Keyring) -> AsyncIterator[tuple[Proxy, Office]]:
    """One process, and the proxy through which it speaks with PostgreSQL."""
    async with proxied(database_url) as (proxy, through), opened(through, keyring) as office:
        yield proxy, office


async def _until_stored(office: Office, path: str) -> None:
    await until(lambda: office.sql("SELECT 1 FROM audit_entries WHERE path = $1", path))


async def test_an_answer_that_was_lost(
    behind: tuple[Proxy, Office], database_url: str, keyring: Keyring
) -> None:
    """An entry that was stored although nobody heard of it is in a lost range, and refused its request."""
    proxy, office = behind
    await office.ledger.append(note("known"))
    proxy.hold()
    unknown = asyncio.create_task(office.ledger.append(note("unknown")))
    office.url = database_url
    await _until_stored(office, "unknown")
    proxy.cut()
    with pytest.raises(Unavailable):
        await unknown
    await office.ledger.append(note("later"))
    found = await stored(office)
    assert [(kind, path) for _, _, kind, path in found] == [
        ("open", ""),
        ("request", "known"),
        ("request", "unknown"),
        ("open", ""),
        ("lost", ""),
        ("request", "later"),
    ]
    lost = json.loads((await office.sql("SELECT detail FROM audit_entries WHERE kind = 'lost'"))[0]["detail"])
    assert (lost["stream"], lost["first"], lost["last"]) == (found[0][0], 3, 3)
    assert (await verdict(database_url, keyring)).ok
    # What was certain before the lost range cannot be removed with it.
    await office.sql("DELETE FROM audit_entries WHERE stream = $1 AND number >= 2", found[0][0])
    cut = await verdict(database_url, keyring)
    assert cut.first_bad is not None
    assert cut.first_bad.reason == "truncated"


async def test_a_database_that_confirms_too_early(office: Office, keyring: Keyring) -> None:
    """While synchronous_commit is off nothing is written, whenever that began; then the stream goes on."""
    await office.ledger.append(note("before"))
    name = (await office.sql("SELECT current_database() AS name"))[0]["name"]
    sealed = SealedStream(office.database, node="n")

    async def reconnected(setting: str) -> None:
        await office.sql(f'ALTER DATABASE "{name}" {setting}')
        await office.sql(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        for _ in range(2):  # whoever has a connection that ended finds out first
            with contextlib.suppress(Unavailable):
                await office.ledger.look()

    await reconnected("SET synchronous_commit = off")
    for _ in range(3):
        with pytest.raises(Unavailable):
            await office.ledger.append(note("meanwhile"))
    with pytest.raises(Unavailable, match="synchronous_commit"):
        await sealed.record("sys.test", "done", keyring=keyring)
    await reconnected("RESET synchronous_commit")
    await office.ledger.append(note("after"))
    await sealed.record("sys.test", "done", keyring=keyring)
    paths = [path for _, _, kind, path in await stored(office) if kind == "request"]
    assert paths == ["before", "after"]
    assert (await verdict(office.url, keyring)).ok


async def test_whose_clock_dates_entries(
    office: Office, keyring: Keyring, caplog: pytest.LogCaptureFixture
) -> None:
    """A process's own, unless that is more than a minute behind the database's; the stream goes on."""
    began, ahead = time.time(), 0.0
    own = []
    async with odd(office, keyring, lambda: began + ahead) as ledger:
        for ahead in (-1e7, -1.0, -1e9, -1e9, 0.0, 1e7):
            await ledger.append(note("p"))
            (row,) = await office.sql("SELECT at FROM audit_entries ORDER BY number DESC LIMIT 1")
            own.append(row["at"] == int((began + ahead) * 1_000_000))
            assert own[-1] or row["at"] > began * 1_000_000
    assert own == [False, True, False, False, True, True]
    assert [text for text in caplog.messages if "clock" in text] == [
        f"this node's clock is {how} the database's" for how in ("far behind", "again near") * 2
    ]
    sealed = SealedStream(office.database, node="n", wall=lambda: 0.0)
    await sealed.record("sys.test", "done", keyring=keyring)
    (row,) = await office.sql("SELECT at FROM audit_entries WHERE operation = 'sys.test'")
    assert row["at"] > began * 1_000_000
    assert len({stream for stream, *_ in await stored(office)}) == 2
    assert (await verdict(office.url, keyring)).ok


async def test_every_lost_range_is_said(office: Office, keyring: Keyring) -> None:
    """When the stream that should tell of a lost range is lost itself, the one after it tells of both."""
    await office.ledger.append(note("known"))
    await office.sql(
        """CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"""
    )
    await office.sql(
        """CREATE TRIGGER hang_up BEFORE INSERT ON audit_entries FOR EACH ROW
           WHEN (NEW.path = 'doomed') EXECUTE FUNCTION hang_up()"""
    )
    for _ in range(3):
        with pytest.raises(Unavailable):
            await office.ledger.append(note("doomed"))
    await office.ledger.append(note("later"))
    details = await office.sql("SELECT detail FROM audit_entries WHERE kind = 'lost' ORDER BY number")
    ranges = [json.loads(row["detail"]) for row in details]
    assert [(one["first"], one["last"]) for one in ranges] == [(3, 3), (1, 3), (1, 4)]
    assert (await verdict(office.url, keyring)).ok


async def test_nothing_is_written_without_a_key(database_url: str, keyring: Keyring) -> None:
    """While there is no key entries are refused as sealed; with it a new stream begins, then goes on."""
    keys: list[bytes | None] = [None]
    database, caches = Database(database_url, size=2), Caches()
    ledger = Ledger(database, caches, node="n", process="p", key=lambda: keys[0])
    ledger.start()
    try:
        with pytest.raises(Sealed):
            await ledger.append(note("sealed"))
        keys[0] = keyring.derived("audit-sign")
        await ledger.append(note("open"))
        keys[0] = None
        with pytest.raises(Sealed):
            await ledger.append(note("sealed again"))
        keys[0] = keyring.derived("audit-sign")
        await ledger.append(note("open again"))
    finally:
        await ledger.stop()
        await database.close()
    with pytest.raises(Unavailable):
        await ledger.append(note("stopped"))
    report = await verdict(database_url, keyring)
    assert report.ok


async def test_whoever_waits_at_the_end_is_told(office: Office) -> None:
    """A process that stops refuses entries that it could not write, rather than leave them waiting."""
    connection = await asyncpg.connect(office.url)
    try:
        await connection.execute("BEGIN; LOCK TABLE audit_entries IN SHARE MODE")
        waiting = [asyncio.create_task(office.ledger.append(note(f"{n}"))) for n in range(3)]
        stuck = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'audit_entries'::regclass"
        await until(lambda: office.sql(stuck))
        waiting += [asyncio.create_task(office.ledger.append(note(f"later {n}"))) for n in range(3)]
        await asyncio.sleep(0)
        await office.ledger.stop()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
    finally:
        await connection.close()


async def test_an_entry_shows_what_changed_before_it(
    database_url: str, keyring: Keyring, office: Office
) -> None:
    """After an entry is durable its process knows of every change that was answered before."""
    async with opened(database_url, keyring) as other:
        for n in range(20):
            async with other.authority.change(other.fence) as change:
                await change.put(ROWS, "a", {"n": n})
            await other.ledger.look()
            await office.ledger.append(note("read"))
            assert office.caches.generation == other.caches.generation
            row = await office.authority.get(ROWS, "a")
            assert row is not None
            assert row.body == {"n": n}


async def test_a_slow_database_is_no_endless_loop(database_url: str, keyring: Keyring) -> None:
    """When no answer is ever fresh enough an entry is refused in the end."""
    async with opened(database_url, keyring, slow=0.0) as office:
        with pytest.raises(Unavailable, match="too slowly"):
            await office.ledger.append(note("read"))
