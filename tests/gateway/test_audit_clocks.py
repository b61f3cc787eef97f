"""Clocks that are wrong: nothing leaves the ledger too early, is left out, lost, or kept for ever."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote

from secrethub.clock import from_micros
from secrethub.storage.database import Database
from secrethub.storage.freshness import Caches
from secrethub.storage.ledger import Ledger, Note
from tests.gateway.archives import configure, nothing_is_lost, old_entries, run
from tests.gateway.audit_sinks import caught_up, enable, paths, state
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok
from tests.gateway.test_ledger_tamper import settled

DAY = 86_400


@contextlib.asynccontextmanager
async def another(node: Node, wall: Callable[[], float]) -> AsyncIterator[Ledger]:
    """Another process's stream, by a clock of its own."""
    database = Database(node.settings.database_url, size=2)
    keyring = node.process.core.keyring()
    ledger = Ledger(
        database, Caches(), node="n2", process="odd", key=lambda: keyring.derived("audit-sign"), wall=wall
    )
    ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()
        await database.close()


async def write(ledger: Ledger, path: str, count: int = 1) -> None:
    """Write down so many reads of a path."""
    note = Note(kind="request", request_id="", actor="a", operation="kv.read", path=path, outcome="missing")
    await asyncio.gather(*(ledger.append(note) for _ in range(count)))


async def test_the_clock_of_whoever_delivers_is_ahead(node: Node, folder: Path) -> None:
    """A process that believes to be days later leaves out nothing that a sink was not given yet."""
    below = folder.parent / "below"
    below.mkdir(mode=0o700)
    place = below / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place), max_lag="1h")
    await caught_up(node, place)
    below.rename(folder.parent / "away")
    for number in range(5):
        await node.call("GET", f"secret/data/x{number}")
    node.clock.move(3 * DAY)
    (folder.parent / "away").rename(below)
    found = await caught_up(node, place)
    assert paths(found, "secret/data/x") == [f"secret/data/x{number}" for number in range(5)]
    assert (await state(node, "local"))["skipped"] == 0


async def test_the_clock_of_whoever_archives_is_ahead(node: Node, folder: Path) -> None:
    """A process that believes to be days later archives nothing before its time."""
    await configure(node, folder, "1h")
    await old_entries(node, 5)
    node.clock.move(3 * DAY)
    done = await run(node)
    assert done == {"segments": [], "entries": 0, "waiting": ""}
    assert list(folder.iterdir()) == []


async def test_a_clock_that_is_months_ahead(node: Node, folder: Path) -> None:
    """Entries from far ahead are kept, found, delivered, signed for and proven; others are archived."""
    url, place = node.settings.database_url, folder.parent / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place))
    async with another(node, lambda: time.time() + 200 * DAY) as ahead:
        await write(ahead, "secret/data/ahead", 30)
    (row,) = await sql(url, "SELECT count(*) AS n FROM audit_entries_other WHERE path = 'secret/data/ahead'")
    assert row["n"] == 30
    await ok(node, "POST", "secret/data/a", {"data": {"k": "v"}})
    found = await caught_up(node, place, "secret/data/ahead")
    assert paths(found, "secret/data/ahead") == ["secret/data/ahead"] * 30
    await until(lambda: settled(url))
    await configure(node, folder, segment_entries=10)
    await old_entries(node, 20)
    assert (await run(node))["entries"] > 20
    assert not await entries(url, path="secret/data/old1")
    assert len(await entries(url, path="secret/data/ahead")) == 30
    since = quote(from_micros(int((time.time() + 100 * DAY) * 1_000_000)).isoformat().replace("+00:00", "Z"))
    found = (await ok(node, "GET", f"sys/audit/entries?since={since}&limit=500"))["entries"]
    assert [entry["path"] for entry in found].count("secret/data/ahead") == 30
    assert {entry["integrity"] for entry in found} == {"ok"}
    for form in ("csv", "jsonl"):
        answer = await node.call("GET", f"sys/audit/export?format={form}&operation=kv.read")
        assert answer.text.count("secret/data/ahead") == 30
    await ledger_is_good(node, state=True)
    assert await nothing_is_lost(node, folder) > 50


async def test_a_clock_that_was_ahead(node: Node, folder: Path) -> None:
    """A stream whose first entry is later than the next ones is archived in its time, and holds up nobody."""
    url = node.settings.database_url
    clock = {"ahead": 3.0}
    await configure(node, folder, segment_entries=10)
    async with another(node, lambda: time.time() + clock["ahead"]) as odd:
        await write(odd, "secret/data/odd")
        clock["ahead"] = 0.0
        await write(odd, "secret/data/odd", 60)
    await old_entries(node, 20)
    await run(node)
    assert len(await entries(url, path="secret/data/odd")) == 61
    assert not await entries(url, path="secret/data/old1")
    await asyncio.sleep(4.0)
    done = await run(node)
    assert not await entries(url, path="secret/data/odd")
    assert done["entries"] >= 61
    assert len(done["segments"]) > 4
    await ledger_is_good(node, state=True)
    assert (await ok(node, "POST", "sys/audit/archive/verify", {}))["ok"]
    assert await nothing_is_lost(node, folder) > 80


async def test_a_clock_that_is_months_behind(node: Node, folder: Path) -> None:
    """What such a process writes is given to every sink, and stays in the ledger for as long as the rest."""
    url, place = node.settings.database_url, folder.parent / "ledger.jsonl"
    await enable(node, "local", "file", file_path=str(place), max_lag="1h")
    await configure(node, folder, "1h")
    async with another(node, lambda: time.time() - 200 * DAY) as slow:
        for _ in range(2):
            await write(slow, "secret/data/slow", 30)
    found = await caught_up(node, place, "secret/data/slow")
    assert paths(found, "secret/data/slow") == ["secret/data/slow"] * 60
    assert (await state(node, "local"))["skipped"] == 0
    assert (await run(node))["entries"] == 0
    assert len(await entries(url, path="secret/data/slow")) == 60
    assert len((await ok(node, "GET", "sys/audit/entries?since=1h&path=secret/data/slow"))["entries"]) == 60
    await ledger_is_good(node, state=True)


async def test_more_entries_of_an_instant_than_a_segment_has(node: Node, folder: Path) -> None:
    """Entries that were written together, more than a segment is to have, are archived all the same."""
    await configure(node, folder, segment_entries=2)
    await old_entries(node, 0)
    assert (await run(node))["segments"]
    async with another(node, time.time) as other:
        await write(other, "secret/data/x", 30)
    await old_entries(node, 1)
    await run(node)
    assert not await entries(node.settings.database_url, path="secret/data/x")
    await ledger_is_good(node, state=True)
    assert await nothing_is_lost(node, folder) > 30
