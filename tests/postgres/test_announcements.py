"""What a write to a row of authority costs the database."""

from __future__ import annotations

import asyncpg


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
