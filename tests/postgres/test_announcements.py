"""What it costs the database to announce changes and to find them."""

from __future__ import annotations

import asyncpg
from offices import founded

_SCANS = "SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'changes'"


async def test_announced_without_going_through_all_buckets(database_url: str) -> None:
    """The bucket of a row that is written is found by its primary key, however many buckets there are."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            r"""INSERT INTO authority_buckets
                SELECT 'tokens', n, n, '\x', '\x' FROM generate_series(0, 4095) AS n"""
        )
        await connection.execute("ANALYZE authority_buckets")
        async with connection.transaction():
            await connection.execute(
                r"""INSERT INTO tokens (key, revision, body, bucket, mac)
                    SELECT 'key ' || n, 1, '{}', n, '\x' FROM generate_series(1, 8) AS n"""
            )
            scans = await connection.fetchrow(
                """SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables
                   WHERE relname = 'authority_buckets'"""
            )
            told = await connection.fetch("SELECT version FROM changes WHERE key LIKE 'tokens/key %'")
    finally:
        await connection.close()
    assert scans is not None
    assert tuple(scans) == (0, 8)
    assert sorted(row["version"] for row in told) == list(range(1, 9))


async def test_changes_are_found_without_going_through_all(database_url: str) -> None:
    """A connection that began with hardly any changes finds the newest of many by their index."""
    await founded(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        since = await connection.fetchval("SELECT pg_current_snapshot()::text")
        # As often as PostgreSQL waits before it keeps a plan, and more.
        for _ in range(10):
            await connection.fetch("SELECT * FROM freshness($1)", since)
        await connection.execute(
            """INSERT INTO changes (kind, key, version)
               SELECT 'authority', 'x/' || n, 1 FROM generate_series(1, 9999) AS n"""
        )
        since = await connection.fetchval("SELECT pg_current_snapshot()::text")
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO changes (kind, key, version) VALUES ('authority', 'x/new', 1)"
            )
            before = await connection.fetchrow(_SCANS)
            for _ in range(10):
                found = await connection.fetch("SELECT * FROM freshness($1)", since)
            after = await connection.fetchrow(_SCANS)
    finally:
        await connection.close()
    assert before is not None
    assert after is not None
    assert after["seq_scan"] == before["seq_scan"]
    assert after["idx_scan"] > before["idx_scan"]
    assert [row["key"] for row in found] == ["x/new"]
