"""The shared database fixtures."""

from __future__ import annotations

import asyncpg


async def test_each_test_has_a_migrated_database_of_its_own(database_url: str, postgres_url: str) -> None:
    """The database given to a test has the schema and is not the template or the server's own."""
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
        name = await connection.fetchval("SELECT current_database()")
    finally:
        await connection.close()
    assert name not in {"migrated", "secrethub"}
