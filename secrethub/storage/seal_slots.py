"""The unseal slots' rows, and the one transaction that changes them.

Every change makes a new root key: whoever could open the old one, with a share or a copy of the database,
cannot open what is written from now on. In one transaction the new root key is sealed to each slot that
stays, and everything that lies directly below the root key is sealed under the new one. So the slots that
are in the database always open the root key that the database needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from secrethub.crypto import notary_key
from secrethub.crypto.digests import equal
from secrethub.crypto.keyring import unwrap, wrap
from secrethub.errors import IntegrityFailure, NotInitialised, Stale
from secrethub.seal.slots import Slot, kind_of, sealed_to, slot_mac
from secrethub.seal.timeline import is_begun, timeline_mac
from secrethub.storage.database import Database
from secrethub.storage.freshness import LOCK
from secrethub.storage.seal_store import ClusterRow, check_incarnation, cluster_row

_DECODER: msgspec.msgpack.Decoder[Slot] = msgspec.msgpack.Decoder(Slot)
_SELECT = "SELECT slot_id, body, mac FROM seal_slots ORDER BY created_at, slot_id"


async def load_slots(database: Database) -> list[Slot]:
    """Return the slots, oldest first, as they lie in the database: nothing is authenticated.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(_SELECT)
    return [_decoded(row) for row in rows]


async def load_authentic_slots(database: Database, root_key: bytes) -> list[Slot]:
    """Return the slots, oldest first, each shown to have been written by a holder of the root key.

    Raises:
        IntegrityFailure: one was not.
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        return await _authentic(connection, root_key)


async def insert_slot(
    connection: asyncpg.Connection[Any], root_key: bytes, slot: Slot, now: datetime
) -> None:
    """Insert a slot's row, authenticated under the root key."""
    await connection.execute(
        "INSERT INTO seal_slots (slot_id, kind, body, created_at, mac) VALUES ($1, $2, $3, $4, $5)",
        slot.slot_id,
        kind_of(slot),
        msgspec.msgpack.encode(slot),
        now,
        slot_mac(root_key, slot),
    )


async def replace_root(
    database: Database,
    old: bytes,
    new: bytes,
    change: Callable[[Sequence[Slot]], Sequence[Slot]],
    *,
    held: ClusterRow,
    writer: str,
    epoch: int | None,
    now: datetime,
) -> ClusterRow:
    """Change the slots and put a new root key in the place of the old one, in one transaction.

    Args:
        database: where.
        old: the root key; must open the keyring and authenticate every slot.
        new: the next one, 32 random bytes.
        change: slots that are there → slots that shall be. Pure; may raise to refuse.
        held: the cluster as the caller knows it.
        writer: the singleton that writes.
        epoch: its incarnation.
        now: the instant.

    Returns:
        The cluster's row afterwards.

    Raises:
        Stale: a newer incarnation of the writer exists, or the seal or the root key moved on.
        IntegrityFailure: a slot's row is not authentic; nothing is sealed to it.
        DecryptionFailed: ``old`` does not open what lies below it.
        Unavailable: the database does not answer; whether it was committed may be unknown.
    """
    async with database.write() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await check_incarnation(connection, writer, epoch)
        record = await connection.fetchrow("SELECT * FROM cluster FOR UPDATE")
        if record is None:
            raise NotInitialised
        row = cluster_row(record)
        if row.sealed or (row.seal_epoch, row.root_version) != (held.seal_epoch, held.root_version):
            raise Stale("the seal moved on")
        before = await _authentic(connection, old)
        slots = [sealed_to(slot, new) for slot in change(before)]
        if not any(slot.opens for slot in slots):
            raise AssertionError("a cluster without a slot that opens could never be opened again")
        await connection.execute(
            "DELETE FROM seal_slots WHERE slot_id <> ALL($1::text[])", [slot.slot_id for slot in slots]
        )
        present = {slot.slot_id for slot in before}
        for slot in slots:
            if slot.slot_id not in present:
                await insert_slot(connection, new, slot, now)
                continue
            await connection.execute(
                "UPDATE seal_slots SET kind = $2, body = $3, mac = $4 WHERE slot_id = $1",
                slot.slot_id,
                kind_of(slot),
                msgspec.msgpack.encode(slot),
                slot_mac(new, slot),
            )
        return await _below(connection, old, new, row)


async def _below(connection: asyncpg.Connection[Any], old: bytes, new: bytes, row: ClusterRow) -> ClusterRow:
    """Bring the keyring, the notary's key and the timeline under the new root key."""
    if not is_begun(old, row.cluster_id, row.timeline, row.timeline_mac):
        raise IntegrityFailure("cluster", "timeline", "it was not begun by this cluster")
    notary = notary_key.unwrap(old, row.wrapped_notary, row.cluster_id, row.notary_public)
    keyring = unwrap(old, row.wrapped_keyring, row.cluster_id, row.keyring_revision)
    try:
        after = replace(
            row,
            keyring_revision=row.keyring_revision + 1,
            wrapped_keyring=wrap(new, keyring, row.cluster_id, row.keyring_revision + 1),
            wrapped_notary=notary_key.wrap(new, notary, row.cluster_id),
            timeline_mac=timeline_mac(new, row.cluster_id, row.timeline),
            root_version=row.root_version + 1,
        )
    finally:
        keyring.wipe()
    await connection.execute(
        """UPDATE cluster SET keyring_revision = $1, wrapped_keyring = $2, root_version = $3,
                              wrapped_notary = $4, timeline_mac = $5""",
        after.keyring_revision,
        after.wrapped_keyring,
        after.root_version,
        after.wrapped_notary,
        after.timeline_mac,
    )
    return after


async def _authentic(connection: asyncpg.Connection[Any], root_key: bytes) -> list[Slot]:
    found = []
    for row in await connection.fetch(_SELECT):
        slot = _decoded(row)
        if slot.slot_id != row["slot_id"] or not equal(row["mac"], slot_mac(root_key, slot)):
            raise IntegrityFailure("seal_slots", row["slot_id"], "the slot was not written by this cluster")
        found.append(slot)
    return found


def _decoded(row: asyncpg.Record) -> Slot:
    try:
        return _DECODER.decode(row["body"])
    except (msgspec.MsgspecError, ValueError):
        raise IntegrityFailure("seal_slots", row["slot_id"], "the slot cannot be read") from None
