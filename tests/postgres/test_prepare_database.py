"""What a database must be before anything is started on it."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import pytest

from cluster.database import check_version, prepare_database
from secrethub.errors import Misconfigured, Unavailable
from secrethub.operations import seal_lifecycle
from secrethub.storage.database import Database


async def _found(url: str, *, dev: bool) -> None:
    database = Database(url, size=1)
    try:
        await seal_lifecycle.initialise(database, 1, 1, datetime.now(UTC), dev=dev)
    finally:
        await database.close()


@pytest.mark.parametrize("dev", [True, False])
async def test_development_and_servers_keep_apart(database_url: str, dev: bool) -> None:
    """A database is for the kind of installation that made its cluster; an empty one is for both."""
    for asks in (True, False):
        await prepare_database(database_url, dev=asks)
    await _found(database_url, dev=dev)
    await prepare_database(database_url, dev=dev)
    with pytest.raises(Misconfigured, match="its own"):
        await prepare_database(database_url, dev=not dev)


async def test_commits_that_could_be_lost(database_url: str) -> None:
    """Where PostgreSQL answers commits before they are durable nothing starts, and no process goes on."""
    connection = await asyncpg.connect(database_url)
    try:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    finally:
        await connection.close()
    with pytest.raises(Misconfigured, match="synchronous_commit"):
        await prepare_database(database_url, dev=False)
    database = Database(database_url, size=1)
    try:
        with pytest.raises(Misconfigured, match="synchronous_commit"):
            async with database.read():
                pass
    finally:
        await database.close()


def test_a_server_that_is_too_old_is_refused() -> None:
    """From PostgreSQL 15 on all are taken; of an older one both versions are told."""
    for number in (150_000, 150_012, 180_001):
        check_version(number)
    for number, major in ((149_999, 14), (140_012, 14), (90_624, 9)):
        with pytest.raises(Misconfigured, match=f"PostgreSQL 15 or newer is needed, this is {major}$"):
            check_version(number)


@pytest.mark.parametrize("url", ["hunter2", "mysql://u:hunter2@h/d", "postgresql://u:hunter2@127.0.0.1:1/d"])
async def test_what_is_no_database(url: str) -> None:
    """A URL that leads to no PostgreSQL is refused without its password."""
    with pytest.raises((Misconfigured, Unavailable)) as refused:
        await prepare_database(url, dev=False)
    assert "hunter2" not in str(refused.value)
