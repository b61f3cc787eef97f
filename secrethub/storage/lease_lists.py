"""Lists and counts of leases, a page at a time by their ids. Nothing here is opened or decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from secrethub.storage.database import Database
from secrethub.storage.kv import HIGHEST
from secrethub.storage.leases import NOW

_SHOWN = """id, state, mount, role, target, owner, owner_name, issued_at, renewed_at, expires_at,
            max_expires_at, renewable, attempts, error, due_at IS NULL AS dead,
            revoked_at IS NOT NULL AS revoked"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which leases; everything that is not empty must hold.

    Attributes:
        prefix: of their ids.
        role: of the engine.
        mounts: UUIDs of mounts they are of; None for all.
        owner: digest of a token, or its beginning, or UUID of an agent.
        expires_before: microseconds since the epoch; 0 for any.
        dead: dead letters only.
    """

    prefix: str = ""
    role: str = ""
    mounts: tuple[str, ...] | None = None
    owner: str = ""
    expires_before: int = 0
    dead: bool = False


async def page(database: Database, wanted: Wanted, after: str, limit: int) -> list[asyncpg.Record]:
    """Return leases in the order of their ids, from the one behind ``after`` on.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        return list(
            await connection.fetch(
                f"""SELECT {_SHOWN} FROM leases
                    WHERE id > $1 AND id >= $2 AND id < $2 || $3 AND ($4 = '' OR role = $4)
                        AND ($5::text[] IS NULL OR mount = ANY($5)) AND ($6 = '' OR starts_with(owner, $6))
                        AND ($7::bigint = 0 OR expires_at < $7) AND (due_at IS NULL OR NOT $8)
                    ORDER BY id LIMIT $9""",  # noqa: S608 - a constant of ours
                after,
                wanted.prefix,
                HIGHEST,
                wanted.role,
                None if wanted.mounts is None else list(wanted.mounts),
                wanted.owner,
                wanted.expires_before,
                wanted.dead,
                limit,
            )
        )


async def names(database: Database, folder: str, limit: int) -> list[str]:
    """Return the next segments of the ids of live leases below a folder, those of folders with a slash.

    Each is found by a step in the index, however many leases it stands for.

    Args:
        database: where.
        folder: with a trailing slash, or empty.
        limit: at most.

    Raises:
        Unavailable: the database does not answer.
    """
    found: list[str] = []
    after = folder
    async with database.read() as connection:
        while len(found) < limit:
            identifier = await connection.fetchval(
                f"""SELECT id FROM leases WHERE id > $1 AND id < $2 || $3 AND state = 'live'
                        AND revoked_at IS NULL AND expires_at > {NOW} ORDER BY id LIMIT 1""",  # noqa: S608
                after,
                folder,
                HIGHEST,
            )
            if identifier is None:
                break
            name, slash, _ = identifier[len(folder) :].partition("/")
            found.append(name + slash)
            after = folder + name + slash + (HIGHEST if slash else "")
    return found


async def identifiers(connection: asyncpg.Connection[Any], prefix: str, after: str, limit: int) -> list[str]:
    """Return ids of leases and intents, in order: below a prefix of whole segments, or the one that it is."""
    rows = await connection.fetch(
        """(SELECT id FROM leases WHERE id = $2 AND id > $1)
           UNION ALL
           (SELECT id FROM leases WHERE id > $1 AND id >= $3 AND id < $3 || $4 ORDER BY id LIMIT $5)""",
        after,
        prefix,
        prefix + "/",
        HIGHEST,
        limit,
    )
    return [row["id"] for row in rows]


async def counts(database: Database, *, dead: bool = False) -> dict[str, int]:
    """Return how many leases each mount has, by its UUID.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            """SELECT mount, count(*) AS count FROM leases
               WHERE state = 'live' AND (due_at IS NULL OR NOT $1) GROUP BY mount""",
            dead,
        )
    return {row["mount"]: row["count"] for row in rows}


async def held(database: Database) -> dict[str, int]:
    """Return how many leases each mount has, by its UUID, those being made included; nothing is counted.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            "SELECT mount, sum(leases)::bigint AS leases FROM lease_counts GROUP BY mount"
        )
    return {row["mount"]: row["leases"] for row in rows}


async def makers(database: Database, limit: int) -> list[asyncpg.Record]:
    """Return who has the most live leases of which role.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        return list(
            await connection.fetch(
                """SELECT mount, role, owner, max(owner_name) AS owner_name, count(*) AS leases,
                          min(expires_at) AS first_expires_at
                   FROM leases WHERE state = 'live' GROUP BY mount, role, owner
                   ORDER BY leases DESC, mount, role, owner LIMIT $1""",
                limit,
            )
        )


async def standing(database: Database) -> dict[str, int]:
    """Return how many leases are dead letters, and how many failed and are tried again.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        row = await connection.fetchrow(
            """SELECT count(*) FILTER (WHERE due_at IS NULL) AS dead,
                      count(*) FILTER (WHERE due_at IS NOT NULL AND error <> '') AS failing,
                      count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due
               FROM leases WHERE due_at IS NULL OR due_at <= statement_timestamp() + interval '10 minutes'"""
        )
    assert row is not None
    return dict(row)
