"""The keyring's row, and how often each of its data keys was used.

Uses are reserved in blocks, committed before the first of them: a process that dies leaves uses that
were counted and not made, never the other way round. A new key is announced as a change of the kind
``keyring``, whose version is the key's number.
"""

from __future__ import annotations

from secrethub.errors import Conflict
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow, check_incarnation

MAX_USES = 2**32
"""Values that one key may seal (NIST SP 800-38D, 8.3: random nonces of 96 bits)."""

_OTHERS = 1 << 16
"""Uses counted beforehand for what SealState seals, which has no count of its own: rows of init, root
tokens. People ask for those one by one."""


async def reserve(database: Database, number: int, uses: int) -> bool:
    """Reserve uses of a data key; tell whether it may be used so often.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        reserved = await connection.fetchval(
            """INSERT INTO data_keys AS held (number, reserved) VALUES ($1, $2::bigint + $3::bigint)
               ON CONFLICT (number) DO UPDATE SET reserved = held.reserved + $2
               WHERE held.reserved + $2 <= $4::bigint RETURNING reserved""",
            number,
            uses,
            _OTHERS,
            MAX_USES,
        )
    return reserved is not None


async def uses(database: Database, number: int) -> int:
    """Return how often a data key was used at most: every use of it was reserved before.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        reserved = await connection.fetchval("SELECT reserved FROM data_keys WHERE number = $1", number)
    return int(reserved or 0)


async def replace_keyring(
    database: Database, row: ClusterRow, wrapped: bytes, newest: int, *, writer: str, epoch: int | None
) -> None:
    """Commit a keyring that follows the one in ``row``, and announce it.

    Args:
        database: where.
        row: the cluster's row as it was read; if it has changed since, nothing happens.
        wrapped: the keyring, sealed for the revision that follows.
        newest: number of its newest data key.
        writer: the singleton that writes.
        epoch: its incarnation; a newer one makes this refuse. None: not checked.

    Raises:
        Stale: a newer incarnation of the writer exists.
        Conflict: the cluster was sealed, or its keyring replaced, meanwhile.
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        await check_incarnation(connection, writer, epoch)
        replaced = await connection.fetchval(
            """UPDATE cluster SET wrapped_keyring = $1, keyring_revision = keyring_revision + 1
               WHERE keyring_revision = $2 AND wrapped_keyring = $3 AND seal_epoch = $4 AND NOT sealed
               RETURNING true""",
            wrapped,
            row.keyring_revision,
            row.wrapped_keyring,
            row.seal_epoch,
        )
        if not replaced:
            raise Conflict("the cluster was sealed, or its keyring replaced, meanwhile")
        await connection.execute(
            "INSERT INTO changes (kind, key, version) VALUES ('keyring', 'cluster', $1)", newest
        )
        await connection.execute("NOTIFY secrethub_changes")
