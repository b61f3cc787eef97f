"""Checkpoints in the database: reading them, and the notary's writes under its epoch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import msgspec

from secrethub.audit.checkpoint import Checkpoint, Signed, StreamTree
from secrethub.audit.checkpoint_base import SignedBase
from secrethub.audit.event import StreamHead
from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.database import Database

NOTARY = "audit-notary"
"""The singleton whose epoch fences checkpoints."""

_PAGE = 1000
_SELECT = """SELECT c.cluster_id, p.sequence, p.timeline, p.epoch, p.at, p.previous, p.streams, p.root,
                    p.heads, p.signature
             FROM audit_checkpoints p, cluster c"""
_MOVED = """FROM audit_streams s LEFT JOIN notarised_streams n USING (stream)
            WHERE n.stream IS NULL OR n.number <> s.number OR n.hash <> s.hash"""
_decode_base = msgspec.msgpack.Decoder(SignedBase).decode
_heads = msgspec.msgpack.Decoder(tuple[tuple[str, int, bytes], ...])


class Moved(msgspec.Struct, frozen=True):
    """A stream whose newest entry no checkpoint has yet. ``signature`` is the entry's own."""

    head: StreamHead
    signature: bytes


async def newest(connection: asyncpg.Connection[Any]) -> Signed | None:
    """Return the newest checkpoint, or None.

    Raises:
        IntegrityFailure: it cannot be read.
    """
    row = await connection.fetchrow(f"{_SELECT} ORDER BY p.sequence DESC LIMIT 1")
    return None if row is None else _signed(row)


async def at_sequence(connection: asyncpg.Connection[Any], sequence: int) -> Signed | None:
    """Return the checkpoint with this number, or None.

    Raises:
        IntegrityFailure: it cannot be read.
    """
    row = await connection.fetchrow(f"{_SELECT} WHERE p.sequence = $1", sequence)
    return None if row is None else _signed(row)


async def base(connection: asyncpg.Connection[Any]) -> SignedBase | None:
    """Return where the checkpoints begin, or None when none was pruned.

    Raises:
        IntegrityFailure: it cannot be read.
    """
    data = await connection.fetchval("SELECT signed FROM audit_checkpoint_base")
    if data is None:
        return None
    try:
        return _decode_base(data)
    except msgspec.MsgspecError as exc:
        raise IntegrityFailure("audit_checkpoint_base", "0", "it cannot be read") from exc


async def beside(
    connection: asyncpg.Connection[Any], sequence: int
) -> tuple[Signed | None, Signed | None, SignedBase | None]:
    """Return what a witness is compared with: the newest checkpoint, the one with a number, and the base.

    The base only where there is none with that number.

    Raises:
        IntegrityFailure: one cannot be read.
    """
    last, same = await newest(connection), await at_sequence(connection, sequence)
    return last, same, None if same is not None else await base(connection)


async def prunable(connection: asyncpg.Connection[Any], limit: int) -> list[Signed]:
    """Return the oldest checkpoints that speak of no entry that the ledger still has; never the newest.

    Those are older than every entry. So are all before one that is, whatever they are dated: the database's
    clock may have been ahead. Whoever moves the instants of entries can only have them leave early, and their
    base vouches for the same.

    Raises:
        IntegrityFailure: one cannot be read.
    """
    rows = await connection.fetch(
        f"""{_SELECT} WHERE p.sequence <= (
                SELECT sequence FROM audit_checkpoints
                WHERE at < (SELECT min(at) FROM audit_entries)
                    AND sequence < (SELECT max(sequence) FROM audit_checkpoints)
                ORDER BY at DESC LIMIT 1)
            ORDER BY p.sequence LIMIT $1""",  # noqa: S608 - a constant of ours
        limit,
    )
    return [_signed(row) for row in rows]


async def put_base(connection: asyncpg.Connection[Any], signed: SignedBase) -> None:
    """Have the checkpoints begin after a base, in the caller's transaction."""
    await connection.execute(
        """INSERT INTO audit_checkpoint_base (signed) VALUES ($1)
           ON CONFLICT (only_one) DO UPDATE SET signed = excluded.signed""",
        msgspec.msgpack.encode(signed),
    )
    await connection.execute("DELETE FROM audit_checkpoints WHERE sequence <= $1", signed.base.sequence)


async def newest_checkpoint(database: Database) -> Signed | None:
    """Return the newest checkpoint, or None.

    Raises:
        Unavailable: the database does not answer.
        IntegrityFailure: it cannot be read.
    """
    async with database.read() as connection:
        return await newest(connection)


async def checkpoint_pages(connection: asyncpg.Connection[Any]) -> AsyncIterator[list[Signed]]:
    """Return every checkpoint in order, in pages; inside one snapshot if the caller has one.

    Raises:
        IntegrityFailure: one cannot be read; ``key`` is its number.
    """
    after = -(1 << 62)
    while True:
        rows = await connection.fetch(
            f"{_SELECT} WHERE p.sequence > $1 ORDER BY p.sequence LIMIT $2", after, _PAGE
        )
        if not rows:
            return
        yield [_signed(row) for row in rows]
        after = rows[-1]["sequence"]


async def load_tree(connection: asyncpg.Connection[Any]) -> StreamTree:
    """Return the tree of the newest checkpoint as the database has it; its root tells whether it is right."""
    rows = await connection.fetch("SELECT stream, number, hash FROM notarised_streams ORDER BY place")
    return StreamTree(StreamHead(row["stream"], row["number"], row["hash"]) for row in rows)


async def keep_tree(connection: asyncpg.Connection[Any], tree: StreamTree) -> None:
    """Write the whole tree anew."""
    await connection.execute("DELETE FROM notarised_streams")
    await _put_places(connection, list(tree), tree)


async def moved_streams(connection: asyncpg.Connection[Any]) -> list[Moved]:
    """Return the streams that went on since the newest checkpoint, in the order of their names."""
    rows = await connection.fetch(
        f"SELECT s.stream, s.number, s.hash, s.signature {_MOVED} ORDER BY s.stream"
    )
    return [Moved(StreamHead(row["stream"], row["number"], row["hash"]), row["signature"]) for row in rows]


async def waiting(database: Database) -> int | None:
    """Return the number of the newest checkpoint, 0 for none, if entries wait for the next one; else None.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        found = await connection.fetchval(
            f"""SELECT COALESCE((SELECT max(sequence) FROM audit_checkpoints), 0)
                WHERE EXISTS (SELECT 1 {_MOVED})"""  # noqa: S608 - a constant of ours
        )
    return None if found is None else int(found)


async def pruned_unproven(database: Database) -> bool:
    """Tell whether there are ``prune`` entries that no checkpoint has yet.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        # The operation, because it has an index.
        return bool(
            await connection.fetchval(
                """SELECT EXISTS (SELECT 1 FROM audit_entries e LEFT JOIN notarised_streams n USING (stream)
                                  WHERE e.operation = 'ledger.prune'
                                      AND e.operation NOT IN ('kv.read', 'kv.write')
                                      AND e.number > COALESCE(n.number, 0))"""
            )
        )


async def check_epoch(connection: asyncpg.Connection[Any], epoch: int) -> None:
    """Check, until the transaction ends, that ``epoch`` is the notary's newest incarnation.

    Raises:
        Stale: there is a newer one.
    """
    found = await connection.fetchval("SELECT epoch FROM epochs WHERE name = $1 FOR SHARE", NOTARY)
    if found != epoch:
        raise Stale(f"{NOTARY} {epoch} was replaced by {found}")


async def put_checkpoint(connection: asyncpg.Connection[Any], signed: Signed, tree: StreamTree) -> None:
    """Write a checkpoint and the leaves that it moved, in the caller's transaction."""
    c = signed.checkpoint
    await connection.execute(
        "INSERT INTO audit_checkpoints VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        c.sequence,
        c.timeline,
        c.epoch,
        c.at,
        c.previous,
        c.streams,
        c.root,
        msgspec.msgpack.encode([(head.stream, head.number, head.head) for head in c.heads]),
        signed.signature,
    )
    await _put_places(connection, c.heads, tree)


async def _put_places(
    connection: asyncpg.Connection[Any], heads: Sequence[StreamHead], tree: StreamTree
) -> None:
    await connection.execute(
        """INSERT INTO notarised_streams
           SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bytea[])
           ON CONFLICT (stream) DO UPDATE SET number = excluded.number, hash = excluded.hash""",
        [head.stream for head in heads],
        [tree.place(head.stream) for head in heads],
        [head.number for head in heads],
        [head.head for head in heads],
    )


def _signed(row: Any) -> Signed:
    try:
        heads = tuple(StreamHead(*head) for head in _heads.decode(row["heads"]))
    except msgspec.MsgspecError as exc:
        raise IntegrityFailure("audit_checkpoints", str(row["sequence"]), "it cannot be read") from exc
    return Signed(
        Checkpoint(
            cluster=row["cluster_id"],
            timeline=row["timeline"],
            sequence=row["sequence"],
            epoch=row["epoch"],
            at=row["at"],
            previous=row["previous"],
            streams=row["streams"],
            root=row["root"],
            heads=heads,
        ),
        row["signature"],
    )
