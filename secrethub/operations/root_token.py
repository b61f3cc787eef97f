"""A root token made anew by SealState, after enough shares were given."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from secrethub.crypto.keyring import unwrap
from secrethub.errors import NotInitialised, Stale
from secrethub.ids import new_token
from secrethub.operations.seal_lifecycle import put_root_token
from secrethub.storage.authority import Change
from secrethub.storage.database import Database
from secrethub.storage.freshness import LOCK
from secrethub.storage.seal_store import ClusterRow, check_incarnation, cluster_row


async def create_root_token(
    database: Database,
    root_key: bytes,
    *,
    held: ClusterRow,
    writer: str,
    epoch: int | None,
    now: datetime,
    written: list[dict[str, Any]],
) -> str:
    """Write the rows of a root token and return it; it never ends and belongs to nobody.

    Args:
        database: where.
        root_key: opens the keyring.
        held: the cluster as the caller knows it.
        writer: the singleton that writes.
        epoch: its incarnation.
        now: the instant.
        written: the rows are added to it, for the ledger, once they are committed.

    Raises:
        Stale: a newer incarnation of the writer exists, or the seal moved on.
        IntegrityFailure: the rows among which the token's would lie are not authentic.
        Unavailable: the database does not answer.
    """
    token = new_token()
    async with database.write() as connection:
        await connection.execute(
            "SELECT pg_advisory_xact_lock_shared($1), set_config('secrethub.change', 'issued', true)", LOCK
        )
        await check_incarnation(connection, writer, epoch)
        record = await connection.fetchrow("SELECT * FROM cluster FOR SHARE")
        if record is None:
            raise NotInitialised
        row = cluster_row(record)
        if row.sealed or (row.seal_epoch, row.root_version) != (held.seal_epoch, held.root_version):
            raise Stale("the seal moved on")
        keyring = unwrap(root_key, row.wrapped_keyring, row.cluster_id, row.keyring_revision)
        try:
            change = Change(connection, keyring.derived("authority"))
            await put_root_token(change, keyring, token, now)
        finally:
            keyring.wipe()
        await connection.execute("NOTIFY secrethub_changes")
    written.extend(change.written)
    return token
