"""The cluster's row, its unseal slots and the epochs of singletons."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from secrethub.errors import NotInitialised, Stale
from secrethub.seal.slots import ShamirSlot
from secrethub.storage.database import Database
from secrethub.storage.freshness import LOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRow:
    """The cluster as the database knows it. ``wrapped_keyring`` opens under the root key only."""

    cluster_id: str
    cluster_name: str
    dev: bool
    created_at: datetime
    sealed: bool
    seal_epoch: int
    generation: int
    keyring_revision: int
    wrapped_keyring: bytes


async def load_cluster(database: Database) -> ClusterRow | None:
    """Return the cluster's row; None only when the database answered that there is none.

    Raises:
        Unavailable: the database does not answer, which is not the same.
    """
    async with database.read() as connection:
        row = await connection.fetchrow("SELECT * FROM cluster")
    if row is None:
        return None
    return ClusterRow(
        cluster_id=row["cluster_id"],
        cluster_name=row["cluster_name"],
        dev=row["dev"],
        created_at=row["created_at"],
        sealed=row["sealed"],
        seal_epoch=row["seal_epoch"],
        generation=row["generation"],
        keyring_revision=row["keyring_revision"],
        wrapped_keyring=row["wrapped_keyring"],
    )


async def load_slots(database: Database) -> list[ShamirSlot]:
    """Return the unseal slots, oldest first.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch("SELECT body FROM seal_slots ORDER BY created_at, slot_id")
    return [msgspec.msgpack.decode(row["body"], type=ShamirSlot) for row in rows]


async def insert_cluster(
    connection: asyncpg.Connection[Any], row: ClusterRow, slots: list[ShamirSlot], now: datetime
) -> bool:
    """Insert the cluster and its slots; False when a cluster exists already (another one was first)."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
    inserted = await connection.fetchval(
        """INSERT INTO cluster (cluster_id, cluster_name, dev, created_at, sealed, seal_epoch, generation,
                                keyring_revision, wrapped_keyring)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING true""",
        row.cluster_id,
        row.cluster_name,
        row.dev,
        row.created_at,
        row.sealed,
        row.seal_epoch,
        row.generation,
        row.keyring_revision,
        row.wrapped_keyring,
    )
    if not inserted:
        return False
    for slot in slots:
        await connection.execute(
            "INSERT INTO seal_slots VALUES ($1, 'shamir', $2, $3)",
            slot.slot_id,
            msgspec.msgpack.encode(slot),
            now,
        )
    return True


async def set_sealed(
    database: Database, *, sealed: bool, writer: str = "seal-state", epoch: int | None = None
) -> int:
    """Commit the cluster's seal state under a new seal epoch, and return that epoch.

    Args:
        database: where.
        sealed: the new state.
        writer: the singleton that writes.
        epoch: its incarnation; a newer incarnation makes this one refuse. None: not checked.

    Raises:
        Unavailable: the database does not answer.
        NotInitialised: there is no cluster.
        Stale: a newer incarnation of the writer exists.
    """
    async with database.write() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        if epoch is not None:
            newest = await connection.fetchval("SELECT epoch FROM epochs WHERE name = $1 FOR SHARE", writer)
            if newest != epoch:
                raise Stale(f"{writer} {epoch} was replaced by {newest}")
        value = await connection.fetchval(
            """UPDATE cluster SET sealed = $1, seal_epoch = seal_epoch + 1, generation = generation + 1
               RETURNING seal_epoch""",
            sealed,
        )
        if value is None:
            raise NotInitialised
        await connection.execute(
            "INSERT INTO changes (kind, key, version) VALUES ('seal', 'cluster', $1)", value
        )
        await connection.execute("NOTIFY secrethub_changes")
    return int(value)


async def next_epoch(database: Database, name: str) -> int:
    """Take the next incarnation number of the singleton ``name``.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        value = await connection.fetchval(
            """INSERT INTO epochs VALUES ($1, 1)
               ON CONFLICT (name) DO UPDATE SET epoch = epochs.epoch + 1 RETURNING epoch""",
            name,
        )
    return int(value)
