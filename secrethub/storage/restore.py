"""A database that was put back: sealing it once that is found out, and accepting it when K shares say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from secrethub.audit.state import floors_detail
from secrethub.crypto.keyring import Keyring
from secrethub.errors import Conflict, IntegrityFailure, NotInitialised
from secrethub.seal.timeline import first_of, moved_to, timeline_mac
from secrethub.seal.warrant import unsealed_mac
from secrethub.storage.authority_rows import ACCESSORS, CUBBYHOLES, SECRET_IDS, TOKENS, bucket_mac, check_head
from secrethub.storage.database import Database
from secrethub.storage.freshness import LOCK
from secrethub.storage.seal_store import check_incarnation

VOIDED = (SECRET_IDS, TOKENS, ACCESSORS, CUBBYHOLES)
"""What may have been revoked, or used up, in the future that was lost."""

_TELL = "INSERT INTO changes (kind, key, version) VALUES ('seal', 'cluster', $1)"
# Whoever knew the lost future drops everything that it keeps of it: announcements are missing.
_FORGET = "changes_pruned_below = GREATEST(changes_pruned_below, pg_current_xact_id()::text::bigint + 1)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """What an accepted restore has begun.

    Attributes:
        timeline: its number.
        seal_epoch: under which the cluster is unsealed.
        incarnation: the number of the SealState that committed it.
        floors: for the ledger, what buckets of authority have reached (``audit/state.py``).
    """

    timeline: int
    seal_epoch: int
    incarnation: int
    floors: Mapping[str, Any]


async def commit_rolled_back(database: Database, reason: str, *, known: int) -> bool:
    """Seal the cluster, because a witness contradicts the database. Needs no key.

    Epochs and generations move to the next timeline at once, so every process, whatever it remembers of the
    future that was lost, learns of it.

    Args:
        database: where.
        reason: what the witness says.
        known: the timeline that the witness has seen.

    Returns:
        Whether it was not known before.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        timeline = await connection.fetchval("SELECT timeline FROM cluster WHERE rolled_back = ''")
        if timeline is None:
            return False
        timeline = max(timeline, known) + 1
        epoch = await connection.fetchval(
            f"""UPDATE cluster SET rolled_back = $1, timeline = $2, sealed = true, seal_epoch = $3,
                                   generation = $3, {_FORGET}
                RETURNING seal_epoch""",  # noqa: S608 - a constant of ours
            reason,
            timeline,
            first_of(timeline),
        )
        await connection.execute(_TELL, epoch)
        await connection.execute("NOTIFY secrethub_changes")
    return True


async def commit_accepted(
    database: Database, root_key: bytes, keyring: Keyring, psk: bytes, *, writer: str, epoch: int
) -> Accepted:
    """Unseal a database that was put back, in a timeline of its own, in which no token or SecretID is good.

    Args:
        database: where.
        root_key: opened with K shares.
        keyring: what it opens.
        psk: the cluster's pre-shared key.
        writer: the singleton that writes.
        epoch: its incarnation.

    Raises:
        Conflict: nobody says that the database was put back.
        NotInitialised: there is no cluster.
        Stale: a newer incarnation of the writer exists.
        Unavailable: the database does not answer; whether it was committed may be unknown.
    """
    async with database.write() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await check_incarnation(connection, writer, epoch)
        row = await connection.fetchrow(
            "SELECT cluster_id, timeline, rolled_back, seal_epoch FROM cluster FOR UPDATE"
        )
        if row is None:
            raise NotInitialised
        if not row["rolled_back"]:
            raise Conflict("the database was not put back, as far as anybody knows")
        timeline = row["timeline"]
        moved = await _move_buckets(connection, keyring.derived("authority"), timeline)
        await connection.execute(f"TRUNCATE {', '.join(table.name for table in VOIDED)}")
        await connection.execute(
            "UPDATE epochs SET epoch = $1 | (epoch & $2)", first_of(timeline), first_of(1) - 1
        )
        seal_epoch = int(row["seal_epoch"]) + 1
        await connection.execute(
            f"""UPDATE cluster SET rolled_back = '', timeline_mac = $1, sealed = false, seal_epoch = $2,
                                   unsealed_mac = $3, generation = generation + 1, {_FORGET}""",  # noqa: S608 - a constant of ours
            timeline_mac(root_key, row["cluster_id"], timeline),
            seal_epoch,
            unsealed_mac(psk, row["cluster_id"], seal_epoch),
        )
        await connection.execute(_TELL, seal_epoch)
        await connection.execute("NOTIFY secrethub_changes")
    return Accepted(
        timeline=timeline,
        seal_epoch=seal_epoch,
        incarnation=moved_to(timeline, epoch),
        floors=floors_detail(moved),
    )


async def _move_buckets(
    connection: asyncpg.Connection[Any], secret: bytes, timeline: int
) -> list[tuple[str, int, int]]:
    """Move every bucket into the timeline, and empty those of what is voided; a broken one stays broken.

    Returns:
        Table, number and new revision of those that were moved.
    """
    voided = frozenset(table.name for table in VOIDED)
    moved: list[tuple[str, int, int, bytes, bytes]] = []
    for head in await connection.fetch(
        "SELECT table_name, bucket, revision, digest, mac FROM authority_buckets ORDER BY 1, 2 FOR UPDATE"
    ):
        name, number = head["table_name"], head["bucket"]
        try:
            check_head(secret, name, number, head)
        except IntegrityFailure:
            continue
        revision = moved_to(timeline, head["revision"]) + 1
        digest = bytes(32) if name in voided else head["digest"]
        moved.append((name, number, revision, digest, bucket_mac(secret, name, number, revision, digest)))
    await connection.execute(
        """UPDATE authority_buckets b SET revision = u.revision, digest = u.digest, mac = u.mac
           FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bytea[], $5::bytea[])
               AS u(name, bucket, revision, digest, mac)
           WHERE b.table_name = u.name AND b.bucket = u.bucket""",
        *([row[column] for row in moved] for column in range(5)),
    )
    return [row[:3] for row in moved]
