"""Places of sinks: what is delivered and what is removed at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from secrethub.audit.event import GENESIS, StreamHead
from secrethub.crypto.keyring import Keyring
from secrethub.storage import sinks
from tests.gateway.behind import sql, until

_WAITING = """SELECT count(*) AS n FROM pg_locks l JOIN pg_stat_activity a USING (pid)
              WHERE NOT l.granted AND a.datname = current_database()"""


async def test_a_sink_that_is_removed_while_it_gets_entries(database_url: str) -> None:
    """Neither removing a sink nor moving its place on waits for what the other has locked already."""
    url = database_url

    async def waiting(count: int) -> None:
        async def enough() -> bool:
            return (await sql(url, _WAITING))[0]["n"] >= count

        await until(enough)

    async def removed() -> None:
        connection = await stack.enter_async_context(_connected(url))
        async with connection.transaction():
            await sinks.forget(connection, "s")

    async def moved() -> bool:
        connection = await stack.enter_async_context(_connected(url))
        async with connection.transaction():
            return await sinks.moved(
                connection, Keyring.generate(), "s", 1, "n1", [StreamHead("a", 2, GENESIS)], delivered=1
            )

    await sql(url, "INSERT INTO audit_sinks (sink) VALUES ('s')")
    await sql(url, "INSERT INTO audit_sink_positions VALUES ('s', 'a', 1, $1)", GENESIS)
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        holder = await stack.enter_async_context(_connected(url))
        # Holds both up at the place, so that each has done what it does before that.
        async with holder.transaction():
            await holder.execute("SELECT FROM audit_sink_positions WHERE sink = 's' FOR UPDATE")
            removal = group.create_task(removed())
            await waiting(1)
            move = group.create_task(moved())
            await waiting(2)
        await removal
        assert not await move
    assert not await sql(url, "SELECT FROM audit_sinks")
    assert not await sql(url, "SELECT FROM audit_sink_positions")


async def test_what_is_only_in_the_archive(database_url: str) -> None:
    """A sink without places is behind by what the ledger still has: the rest is never given to it."""
    await sql(database_url, "INSERT INTO audit_streams VALUES ('a', 5, $1, $1), ('b', 5, $1, $1)", GENESIS)
    await sql(database_url, "INSERT INTO audit_pruned VALUES ('a', 5, $1), ('b', 3, $1)", GENESIS)
    async with _connected(database_url) as connection:
        places = await sinks.places_of(connection, Keyring.generate(), "s")
        assert await sinks.behind_of(connection, places) == 2


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
