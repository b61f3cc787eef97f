"""The cluster's row and the epochs of singletons."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from secrethub.errors import NotInitialised, PutBack, Stale
from secrethub.seal.warrant import unsealed_mac
from secrethub.storage.database import Database
from secrethub.storage.freshness import LOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRow:
    """The cluster as the database knows it. What is wrapped opens under the root key only.

    ``root_version`` counts root keys: each change of the slots makes another one. ``rolled_back`` says what a
    witness has against the database, and is empty while nobody has anything. ``unsealed_mac`` is
    :func:`secrethub.seal.warrant.unsealed_mac` of the last unseal, and of no use once sealed again.
    """

    cluster_id: str
    cluster_name: str
    dev: bool
    created_at: datetime
    sealed: bool
    seal_epoch: int
    generation: int
    keyring_revision: int
    wrapped_keyring: bytes
    notary_public: bytes
    notary_mac: bytes
    wrapped_notary: bytes
    timeline_mac: bytes
    timeline: int = 1
    rolled_back: str = ""
    root_version: int = 1
    unsealed_mac: bytes = b""


async def load_cluster(database: Database) -> ClusterRow | None:
    """Return the cluster's row; None only when the database answered that there is none.

    Raises:
        Unavailable: the database does not answer, which is not the same.
    """
    async with database.read() as connection:
        row = await connection.fetchrow("SELECT * FROM cluster")
    return None if row is None else cluster_row(row)


def cluster_row(row: asyncpg.Record) -> ClusterRow:
    """Return what a record of the table ``cluster`` says."""
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
        root_version=row["root_version"],
        notary_public=row["notary_public"],
        notary_mac=row["notary_mac"],
        wrapped_notary=row["wrapped_notary"],
        timeline_mac=row["timeline_mac"],
        timeline=row["timeline"],
        rolled_back=row["rolled_back"],
        unsealed_mac=row["unsealed_mac"],
    )


async def insert_cluster(connection: asyncpg.Connection[Any], row: ClusterRow) -> bool:
    """Insert the cluster; False when a cluster exists already (another one was first)."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
    inserted = await connection.fetchval(
        """INSERT INTO cluster (cluster_id, cluster_name, dev, created_at, sealed, seal_epoch, generation,
                                keyring_revision, wrapped_keyring, root_version, notary_public, notary_mac,
                                wrapped_notary, timeline_mac, unsealed_mac)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
           ON CONFLICT DO NOTHING RETURNING true""",
        row.cluster_id,
        row.cluster_name,
        row.dev,
        row.created_at,
        row.sealed,
        row.seal_epoch,
        row.generation,
        row.keyring_revision,
        row.wrapped_keyring,
        row.root_version,
        row.notary_public,
        row.notary_mac,
        row.wrapped_notary,
        row.timeline_mac,
        row.unsealed_mac,
    )
    return bool(inserted)


async def check_incarnation(connection: asyncpg.Connection[Any], writer: str, epoch: int | None) -> None:
    """Let only the newest incarnation of a singleton write, and no newer one begin until the commit.

    Args:
        connection: in the writing transaction.
        writer: the singleton.
        epoch: its incarnation. None: not checked.

    Raises:
        Stale: a newer incarnation of the writer exists.
    """
    if epoch is None:
        return
    newest = await connection.fetchval("SELECT epoch FROM epochs WHERE name = $1 FOR SHARE", writer)
    if newest != epoch:
        raise Stale(f"{writer} {epoch} was replaced by {newest}")


async def set_sealed(
    database: Database, *, unsealed_by: bytes | None, writer: str = "seal-state", epoch: int | None = None
) -> int:
    """Commit the cluster's seal state under a new seal epoch, and return that epoch.

    Args:
        database: where.
        unsealed_by: the pre-shared key of whoever unseals it. None: it is sealed.
        writer: the singleton that writes.
        epoch: its incarnation; a newer incarnation makes this one refuse. None: not checked.

    Raises:
        Unavailable: the database does not answer.
        NotInitialised: there is no cluster.
        Stale: a newer incarnation of the writer exists.
        PutBack: it is not unsealed before enough shares accept that the database was put back.
    """
    async with database.write() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await check_incarnation(connection, writer, epoch)
        row = await connection.fetchrow("SELECT cluster_id, seal_epoch, rolled_back FROM cluster FOR UPDATE")
        if row is None:
            raise NotInitialised
        value = int(row["seal_epoch"]) + 1
        shown = b""
        if unsealed_by is not None:
            if row["rolled_back"]:
                raise PutBack
            shown = unsealed_mac(unsealed_by, row["cluster_id"], value)
        await connection.execute(
            "UPDATE cluster SET sealed = $1, seal_epoch = $2, unsealed_mac = $3, generation = generation + 1",
            unsealed_by is None,
            value,
            shown,
        )
        await connection.execute(
            "INSERT INTO changes (kind, key, version) VALUES ('seal', 'cluster', $1)", value
        )
        await connection.execute("NOTIFY secrethub_changes")
    return value


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
