"""Hearing of other processes' commits: soon, again after a loss, and until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from offices import ROWS, Office, founded, opened, until

from secrethub.storage.feed import Feed
from secrethub.storage.freshness import Changed


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """A process that makes changes."""
    async with opened(database_url, await founded(database_url)) as one:
        yield one


@pytest.fixture
async def listener(office: Office) -> AsyncIterator[Office]:
    """A process that hears of them."""
    async with opened(office.url, office.keyring) as one:
        yield one


async def _told(listener: Office, key: str) -> asyncio.Event:
    """Return what is set when a change of ``key`` is announced to the listener."""
    heard = asyncio.Event()

    def look(change: Changed) -> None:
        if change.key == key:
            heard.set()

    listener.caches.subscribe(look)
    return heard


async def test_a_commit_is_heard_of(office: Office, listener: Office) -> None:
    """What one process commits another is told of, though it does nothing itself."""
    ours = Feed(office.database, office.caches, office.ledger)
    theirs = Feed(listener.database, listener.caches, listener.ledger)
    ours.start()
    theirs.start()
    try:
        for n in range(5):
            heard = await _told(listener, f"pki_roles/row-{n}")
            await office.put(ROWS, f"row-{n}", {"n": n})
            ours.notify()
            async with asyncio.timeout(20):
                await heard.wait()
    finally:
        await ours.stop()
        await theirs.stop()


async def test_a_lost_connection_is_made_again(office: Office, listener: Office) -> None:
    """When the listening connection is lost everything kept is dropped, and changes are heard of again."""
    flushes: list[int] = []
    listener.caches.on_flush(lambda: flushes.append(1))
    feed = Feed(listener.database, listener.caches, listener.ledger)
    feed.start()
    try:
        gone = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE query LIKE 'LISTEN%' AND datname = current_database()"""
        await until(lambda: office.sql(gone))
        heard = await _told(listener, "pki_roles/a")
        await office.put(ROWS, "a", {"n": 1})
        async with asyncio.timeout(20):
            await heard.wait()

        async def dropped() -> bool:
            return bool(flushes)

        await until(dropped)
    finally:
        await feed.stop()


async def test_stopping_while_something_is_heard(office: Office) -> None:
    """A feed ends when it is told to, also at the very moment in which it hears of something."""
    for _ in range(20):
        feed = Feed(office.database, office.caches, office.ledger)
        feed.start()
        before = feed.healthy_at

        async def looks(feed: Feed = feed, before: float = before) -> bool:
            return feed.healthy_at > before

        feed.notify()
        await until(looks)
        feed.notify()
        async with asyncio.timeout(20):
            await feed.stop()
