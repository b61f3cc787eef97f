"""Which serving processes hold the keyring, so that a seal can wait until none does.

A process says that it holds the keys before it answers anything with them, says so again every few
seconds, and takes it back when it has dropped them. One that is silent for long is gone.
"""

from __future__ import annotations

from secrethub.storage.database import Database

BEAT_SECONDS = 2.0
"""Between two times that a process says that it holds the keys."""
_GONE_SECONDS = 60.0


async def hold_keys(database: Database, process: str, shown: str, epoch: int) -> None:
    """Say that a process holds the keyring of a seal epoch, and forget those that are long silent.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        await connection.execute(
            """INSERT INTO key_users VALUES ($1, $2, $3, clock_timestamp())
               ON CONFLICT (process) DO UPDATE SET seal_epoch = $3, seen_at = clock_timestamp()""",
            process,
            shown,
            epoch,
        )
        await connection.execute(
            "DELETE FROM key_users WHERE seen_at < clock_timestamp() - make_interval(secs => $1)",
            _GONE_SECONDS,
        )


async def dropped_keys(database: Database, process: str) -> None:
    """Say that a process holds no keys any more.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        await connection.execute("DELETE FROM key_users WHERE process = $1", process)


async def holding_keys(database: Database) -> list[str]:
    """Return who still holds keys of an epoch before the present one, or has not said otherwise.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            """SELECT shown FROM key_users, cluster
               WHERE key_users.seal_epoch < cluster.seal_epoch
                   AND seen_at >= clock_timestamp() - make_interval(secs => $1)
               ORDER BY shown""",
            _GONE_SECONDS,
        )
    return [row["shown"] for row in rows]
