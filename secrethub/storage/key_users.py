"""Which serving processes hold the keyring, so that a seal can wait until none does.

A process says that it holds the keys before it answers anything with them, says so again every few
seconds, and takes it back when it has dropped them. One that is silent for long, and has no connection to the
database any more, is gone. One that was stopped keeps its connections, however long that is, and its keys.
"""

from __future__ import annotations

from secrethub.storage.database import Database

BEAT_SECONDS = 2.0
"""Between two times that a process says that it holds the keys."""
_GONE = """(seen_at < clock_timestamp() - interval '1 minute' AND NOT EXISTS
    (SELECT 1 FROM pg_stat_activity a WHERE a.application_name = key_users.process))"""


async def hold_keys(database: Database, shown: str, epoch: int) -> None:
    """Say that this process holds the keyring of a seal epoch, and forget those that are gone.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        await connection.execute(
            """INSERT INTO key_users VALUES ($1, $2, $3, clock_timestamp())
               ON CONFLICT (process) DO UPDATE SET seal_epoch = $3, seen_at = clock_timestamp()""",
            database.name,
            shown,
            epoch,
        )
        await connection.execute(f"DELETE FROM key_users WHERE {_GONE}")  # noqa: S608 - a constant


async def dropped_keys(database: Database) -> None:
    """Say that this process holds no keys any more.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        await connection.execute("DELETE FROM key_users WHERE process = $1", database.name)


async def holding_keys(database: Database) -> list[str]:
    """Return who still holds keys of an epoch before the present one, or has not said otherwise.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            f"""SELECT shown FROM key_users, cluster
                WHERE key_users.seal_epoch < cluster.seal_epoch AND NOT {_GONE}
                ORDER BY shown"""  # noqa: S608 - a constant
        )
    return [row["shown"] for row in rows]
