"""Which targets are searched for users without a lease, when, and what was found there last.

A target is claimed by moving its ``not_before`` on, so that one process of the cluster searches it; another
does once the claim of one that died has run out. All times are the database's. Keys are those of the rows
that configure targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from secrethub.storage.database import Database

CLAIM_SECONDS = 300.0
KEPT_NAMES = 200
"""Names of strays that are kept of a search."""
_FIRST_SECONDS = 60.0
"""Within which, at random, a new target is searched for the first time."""


async def enter(database: Database, keys: Sequence[str]) -> None:
    """Know these targets and no others.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        await connection.execute("DELETE FROM stray_checks WHERE key <> ALL($1::text[])", list(keys))
        await connection.execute(
            """INSERT INTO stray_checks (key, not_before)
               SELECT key, clock_timestamp() + make_interval(secs => $2 * random())
               FROM unnest($1::text[]) AS key ON CONFLICT DO NOTHING""",
            list(keys),
            _FIRST_SECONDS,
        )


async def claim(database: Database, intervals: Mapping[str, float]) -> str | None:
    """Claim the target that has waited longest of those that are due, and return its key.

    Args:
        database: where.
        intervals: seconds between two searches, by key.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        found: str | None = await connection.fetchval(
            """WITH due AS (
                   SELECT c.key FROM stray_checks c
                   JOIN unnest($1::text[], $2::double precision[]) AS w(key, seconds) ON w.key = c.key
                   WHERE c.not_before <= clock_timestamp() AND (c.checked_at IS NULL
                       OR c.checked_at + make_interval(secs => w.seconds * c.spread) <= clock_timestamp())
                   ORDER BY c.not_before LIMIT 1 FOR UPDATE OF c SKIP LOCKED)
               UPDATE stray_checks c SET not_before = clock_timestamp() + make_interval(secs => $3)
               FROM due WHERE c.key = due.key RETURNING c.key""",
            list(intervals),
            [float(seconds) for seconds in intervals.values()],
            CLAIM_SECONDS,
        )
    return found


async def done(database: Database, key: str, left: Sequence[str]) -> None:
    """Note what a search has found and nobody has removed.

    Raises:
        Unavailable: the database does not answer; the target is searched again once the claim has run out.
    """
    async with database.write() as connection:
        # The next one is a tenth earlier or later, so that targets do not stay in step.
        await connection.execute(
            """UPDATE stray_checks SET checked_at = clock_timestamp(), not_before = clock_timestamp(),
                   spread = 0.9 + 0.2 * random(), strays = $2, names = $3, error = '' WHERE key = $1""",
            key,
            len(left),
            list(left[:KEPT_NAMES]),
        )


async def failed(database: Database, key: str, why: str, seconds: float) -> None:
    """Note that a target could not be searched, and leave it alone for so long, half of it at random.

    Raises:
        Unavailable: the database does not answer; the claim runs out.
    """
    async with database.write() as connection:
        await connection.execute(
            """UPDATE stray_checks SET error = $2,
                   not_before = clock_timestamp() + make_interval(secs => $3 * (0.5 + random() / 2))
               WHERE key = $1""",
            key,
            why,
            seconds,
        )


async def last(database: Database, key: str) -> asyncpg.Record | None:
    """Return what is known of one target; None when it was never entered.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        return await connection.fetchrow("SELECT * FROM stray_checks WHERE key = $1", key)


async def counts(database: Database) -> dict[str, int]:
    """Return how many strays each target has, by key, of those that were searched.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch("SELECT key, strays FROM stray_checks WHERE checked_at IS NOT NULL")
    return {row["key"]: row["strays"] for row in rows}
