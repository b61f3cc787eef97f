"""The end of leases and of intents: what is due, claimed by one process at a time, and how it went.

Whoever claims one moves its due instant on by more than an attempt can take, in the claiming statement.
So a process that dies meanwhile holds nothing up: its leases are due again by themselves. Ending a lease
can be repeated, so nobody is harmed when two processes do it.

A lease whose end was given up is a dead letter: it has no due instant any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import asyncpg

from secrethub.storage.database import Database
from secrethub.storage.leases import NOW

CLAIM_SECONDS = 60.0
"""That a claim holds; an attempt must take less."""

_ORDER = """UPDATE leases SET revoked_at = clock_timestamp(),
                due_at = CASE WHEN state = 'live' THEN clock_timestamp() ELSE due_at END
            WHERE revoked_at IS NULL AND """
_CHOSEN = "id = ANY(${}::text[]) AND (state = 'live' OR due_at <= clock_timestamp())"
"""An intent keeps its due instant: whoever is making it is not disturbed, but cannot make it live."""


async def order_for_owners(
    connection: asyncpg.Connection[Any], owners: Collection[str], *, heirs: bool = True
) -> None:
    """Have the leases of owners that end be ended, in the caller's transaction.

    Args:
        connection: in the transaction in which the owners end.
        owners: digests of tokens, UUIDs of agents.
        heirs: leases of what was made from them, too.
    """
    mine = "lineage && $1::text[]" + ("" if heirs else " AND owner = ANY($1::text[])")
    await connection.execute(_ORDER + mine, list(owners))


async def order_for_mount(connection: asyncpg.Connection[Any], mount: str) -> None:
    """Have the leases of a mount be ended, in the caller's transaction."""
    await connection.execute(_ORDER + "mount = $1", mount)


async def order(connection: asyncpg.Connection[Any], identifiers: Collection[str]) -> None:
    """Have leases be ended, in the caller's transaction; those of which that was ordered before, too."""
    await connection.execute(
        """UPDATE leases SET revoked_at = COALESCE(revoked_at, clock_timestamp()),
               due_at = CASE WHEN state = 'live' THEN LEAST(due_at, clock_timestamp()) ELSE due_at END
           WHERE id = ANY($1::text[])""",
        list(identifiers),
    )


async def left_of(database: Database, mount: str, limit: int) -> list[str]:
    """Return ids of leases and intents of a mount.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch("SELECT id FROM leases WHERE mount = $1 LIMIT $2", mount, limit)
    return [row["id"] for row in rows]


async def claim(
    database: Database, limit: int, *, but: Collection[str] = (), only: Collection[str] | None = None
) -> list[asyncpg.Record]:
    """Claim what is due, the oldest first, and return the rows, ``attempts`` counting this one.

    Args:
        database: where.
        limit: at most.
        but: targets to leave alone, each as ``<mount>/<target>``.
        only: ids to choose from, due or not; None for all that is due.

    Raises:
        Unavailable: the database does not answer.
    """
    # Not clock_timestamp(), which changes within a statement: an index could not be asked for it.
    which = "due_at <= statement_timestamp()" if only is None else _CHOSEN.format(4)
    given = [] if only is None else [list(only)]
    return await database.once(
        f"""WITH due AS (
                SELECT id FROM leases WHERE {which} AND mount || '/' || target <> ALL($2::text[])
                ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
            UPDATE leases SET due_at = clock_timestamp() + make_interval(secs => $3),
                attempts = attempts + 1
            FROM due WHERE leases.id = due.id RETURNING leases.*""",  # noqa: S608 - ours
        limit,
        list(but),
        CLAIM_SECONDS,
        *given,
    )


async def claimable(database: Database, identifiers: Collection[str]) -> list[str]:
    """Return which of these leases are there and can be ended now, whoever works at them.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            f"SELECT id FROM leases WHERE {_CHOSEN.format(1)}",  # noqa: S608 - a constant of ours
            list(identifiers),
        )
    return [row["id"] for row in rows]


async def next_due(database: Database) -> float | None:
    """Return the seconds until something is due, less than 0 when it is overdue; None when nothing is.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        found = await connection.fetchval(
            """SELECT extract(epoch FROM due_at - clock_timestamp())::double precision FROM leases
               WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1"""
        )
    return None if found is None else float(found)


async def ended(database: Database, identifiers: Sequence[str]) -> None:
    """Forget leases that are gone at their targets.

    Raises:
        Unavailable: the database does not answer; they are ended once more.
    """
    await database.once("DELETE FROM leases WHERE id = ANY($1::text[])", list(identifiers))


async def postpone(database: Database, failures: Sequence[tuple[str, float | None, str]]) -> None:
    """Note why leases could not be ended, and when that is tried again.

    Args:
        database: where.
        failures: id, seconds from now or None for never, reason.

    Raises:
        Unavailable: the database does not answer; the claims run out by themselves.
    """
    async with database.write() as connection:
        await connection.execute(
            """UPDATE leases l SET error = u.error,
                   due_at = clock_timestamp() + make_interval(secs => u.pause)
               FROM unnest($1::text[], $2::double precision[], $3::text[]) AS u(id, pause, error)
               WHERE l.id = u.id""",
            [one[0] for one in failures],
            [one[1] for one in failures],
            [one[2] for one in failures],
        )


async def retry(connection: asyncpg.Connection[Any], prefix: str) -> list[str]:
    """Have dead letters below a prefix be tried again, in the caller's transaction; return their ids."""
    rows = await connection.fetch(
        """UPDATE leases SET due_at = clock_timestamp(), attempts = 1
           WHERE due_at IS NULL AND starts_with(id, $1) RETURNING id""",
        prefix,
    )
    return sorted(row["id"] for row in rows)


async def mend_deadlines(connection: asyncpg.Connection[Any]) -> int:
    """Make due what should be and is not, whoever put its due instant off; return how many."""
    return len(
        await connection.fetch(
            f"""UPDATE leases SET due_at = clock_timestamp()
                WHERE expires_at < {NOW} AND due_at > clock_timestamp() + interval '15 minutes'
                RETURNING true"""  # noqa: S608 - a constant of ours
        )
    )


async def give_up(database: Database, identifier: str) -> None:
    """Have an intent undone as soon as possible.

    Raises:
        Unavailable: the database does not answer; it is undone after its grace.
    """
    async with database.write() as connection:
        await connection.execute(
            """UPDATE leases SET due_at = clock_timestamp(),
                   revoked_at = COALESCE(revoked_at, clock_timestamp())
               WHERE id = $1 AND state = 'intent'""",
            identifier,
        )
