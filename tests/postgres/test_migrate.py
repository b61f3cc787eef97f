"""Migrations that several processes begin at once, or that are cut off, end in one current schema."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
import sqlalchemy.exc
from offices import founded, opened, until

from secrethub.storage.migrate import sqlalchemy_url, upgrade

_UPGRADE = """
import asyncio, sys
from secrethub.storage.migrate import upgrade
sys.stdin.readline()
asyncio.run(upgrade(sys.argv[1]))
"""


async def fetch(url: str, statement: str) -> list[asyncpg.Record]:
    """Run a statement and return its rows."""
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """URL of a database without any table."""
    name = f"empty_{secrets.token_hex(6)}"
    await fetch(postgres_url, f'CREATE DATABASE "{name}"')
    yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    await fetch(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _current(url: str) -> str:
    rows = await fetch(url, "SELECT version_num FROM alembic_version")
    assert len(rows) == 1
    return str(rows[0]["version_num"])


async def test_tasks_that_race(empty_url: str, database_url: str) -> None:
    """Of many upgrades at once one does the work, and all return."""
    await asyncio.gather(*(upgrade(empty_url) for _ in range(8)))
    assert await _current(empty_url) == await _current(database_url)
    await upgrade(empty_url)
    assert await fetch(empty_url, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []


async def test_processes_that_race(empty_url: str, database_url: str) -> None:
    """Several operating system processes that upgrade at the same moment all end well."""
    children = [
        subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", _UPGRADE, empty_url], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    try:
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
        for child in children:
            _, errors = await asyncio.to_thread(child.communicate, None, 120)
            assert child.returncode == 0, errors.decode()
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert await _current(empty_url) == await _current(database_url)
    keyring = await founded(empty_url)
    async with opened(empty_url, keyring) as office:
        await office.ledger.look()


async def test_an_upgrade_that_is_cut_off(empty_url: str, database_url: str) -> None:
    """An upgrade whose connection is lost half way leaves nothing behind, and the next one does it all."""
    connection = await asyncpg.connect(empty_url)
    try:
        # The second revision cannot go on while this is here, and the first one is committed by then or not.
        await connection.execute("BEGIN; CREATE TABLE changes (held integer)")
        half = asyncio.create_task(upgrade(empty_url))
        stuck = """SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                   WHERE NOT l.granted AND a.datname = current_database()"""
        await until(lambda: fetch(empty_url, stuck))
        with pytest.raises((sqlalchemy.exc.SQLAlchemyError, OSError)):
            await half
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()
    await upgrade(empty_url)
    assert await _current(empty_url) == await _current(database_url)


async def test_a_database_that_is_away() -> None:
    """An upgrade of a database that cannot be reached is an error that names no password."""
    url = "postgresql://somebody:canary-password@/x?host=/nonexistent"
    with pytest.raises((sqlalchemy.exc.SQLAlchemyError, OSError)) as caught:
        await upgrade(url)
    assert "canary-password" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_any_spelling_of_the_url(scheme: str) -> None:
    """A database's URL may be written in each of the usual ways."""
    assert sqlalchemy_url(f"{scheme}://u@h/d?host=/s") == "postgresql+asyncpg://u@h/d?host=/s"


async def test_schema_is_as_on_a_fresh_database(empty_url: str, database_url: str) -> None:
    """However it came about, a migrated database has the same tables, columns, indexes and functions."""
    await asyncio.gather(upgrade(empty_url), upgrade(empty_url))
    columns = """SELECT table_name, column_name, data_type, is_nullable, column_default
                 FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"""
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    functions = """SELECT proname, prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                   WHERE nspname = 'public' ORDER BY 1"""
    for statement in (columns, indexes, functions):
        assert await fetch(empty_url, statement) == await fetch(database_url, statement)
