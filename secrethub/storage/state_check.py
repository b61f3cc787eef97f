"""Comparing the rows of authority with what the ledger says of them (``audit/state.py``).

A bucket is authentic in exactly one state at each revision. So one that is authentic, and has at least the
revision that the ledger knows of, is as it should be, row by row; only of the others the rows are looked at
one by one, to say which of them is wrong.

Everything happens in the snapshot in which the ledger was verified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import asyncpg
import msgspec

from secrethub.audit.state import Floor, Floors, Written, written_in
from secrethub.errors import IntegrityFailure
from secrethub.storage.authority_rows import TABLES, Table, checked_bucket, verified
from secrethub.storage.ledger_read import entries_naming

MOST = 100
"""Rows that are named, of those that are wrong."""

_ROWS = 20_000
"""That are read at once, about."""


class BadRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is not as it should be.

    Attributes:
        table: where it is.
        key: its primary key; ``bucket <number>`` when it cannot be told which row of a bucket it is.
        reason: ``removed``; ``put back``: it is an older one, or one that was removed; ``inserted``: nobody
            who may has written it; ``edited``: its authentication is wrong.
        stream: of the entry that says what should be there; empty when none does.
        number: of that entry, 0 when there is none.
    """

    table: str
    key: str
    reason: str
    stream: str = ""
    number: int = 0


class Checked(msgspec.Struct):
    """What was found.

    Attributes:
        rows: that were looked at.
        unrecorded: rows or buckets that are newer than the ledger knows: whoever changed them has not said so
            yet, or died before. They are authentic.
        bad: rows that are wrong, at most :data:`MOST`.
    """

    rows: int = 0
    unrecorded: int = 0
    bad: list[BadRow] = msgspec.field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether no more rows are to be named."""
        return len(self.bad) >= MOST


def floors() -> Floors:
    """Return where floors of all tables of authority are gathered."""
    return Floors({table.name: table.bucket for table in TABLES})


async def check_authority(
    connection: asyncpg.Connection[Any], secret: bytes, known: Floors, into: Checked
) -> None:
    """Check every row of authority.

    Args:
        connection: in the snapshot.
        secret: authenticates the rows.
        known: fed with the whole ledger.
        into: takes what is found.
    """
    for table in TABLES:
        broken: dict[int, str] = {}
        count = await connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608 - ours
        step = max(1, table.buckets * _ROWS // max(count, _ROWS))
        for first in range(0, table.buckets, step):
            numbers = range(first, min(first + step, table.buckets))
            heads, present = await _buckets(connection, table, numbers)
            for number in numbers:
                rows, head, floor = present.get(number, {}), heads.get(number), known.get(table.name, number)
                into.rows += len(rows)
                try:
                    checked_bucket(
                        secret,
                        table,
                        number,
                        head,
                        {key: (row["revision"], row["mac"]) for key, row in rows.items()},
                        floor=0 if floor is None else floor.revision,
                        key=f"bucket {number}",
                    )
                    for row in rows.values():
                        verified(secret, table, row)
                except IntegrityFailure as exc:
                    broken[number] = exc.reason
                else:
                    reached = 0 if head is None else head["revision"]
                    into.unrecorded += reached > (0 if floor is None else floor.revision)
            await asyncio.sleep(0)
        if broken:
            await _name(connection, secret, table, broken, known, into)
        await _astray(connection, table, into)


async def _buckets(
    connection: asyncpg.Connection[Any], table: Table, numbers: Collection[int]
) -> tuple[dict[int, Any], dict[int, dict[str, Any]]]:
    """Return the heads of buckets, and the rows of each by their keys."""
    heads = await connection.fetch(
        """SELECT bucket, revision, digest, mac FROM authority_buckets
           WHERE table_name = $1 AND bucket = ANY($2::integer[])""",
        table.name,
        list(numbers),
    )
    present: dict[int, dict[str, Any]] = {}
    for row in await connection.fetch(
        f"""SELECT bucket, key, revision, mac, body::text AS body, owner, expires_at FROM {table.name}
            WHERE bucket = ANY($1::integer[])""",  # noqa: S608 - a constant of ours
        list(numbers),
    ):
        present.setdefault(row["bucket"], {})[row["key"]] = row
    return {head["bucket"]: head for head in heads}, present


async def _name(
    connection: asyncpg.Connection[Any],
    secret: bytes,
    table: Table,
    broken: Mapping[int, str],
    known: Floors,
    into: Checked,
) -> None:
    """Say which rows of broken buckets are wrong."""
    newest: dict[int, dict[str, tuple[Written, str, int]]] = {number: {} for number in broken}
    async for stream, number, _, detail in entries_naming(connection, table.name):
        for one in written_in(detail):
            of = newest.get(table.bucket(one.key)) if one.table == table.name else None
            if of is not None and (one.key not in of or one.revision > of[one.key][0].revision):
                of[one.key] = (one, stream, number)
    for number in sorted(broken):
        if into.full:
            return
        _, present = await _buckets(connection, table, [number])
        forgotten = known.forgotten(table.name, number)
        found = list(_wrong(secret, table, present.get(number, {}), newest[number], forgotten))
        if not found:
            floor = known.get(table.name, number) or Floor(0, "", 0)
            found = [_bad(table, f"bucket {number}", broken[number], floor.stream, floor.number)]
        into.bad += found[: MOST - len(into.bad)]


def _wrong(
    secret: bytes,
    table: Table,
    present: Mapping[str, Any],
    newest: Mapping[str, tuple[Written, str, int]],
    forgotten: int,
) -> Iterable[BadRow]:
    """Yield the rows of a broken bucket that are not as the ledger says.

    One that the ledger does not know may be newer than it, so it counts only when nothing else explains why
    the bucket is broken; or older than every entry that was not pruned, and then it tells nothing.
    """
    unknown: list[BadRow] = []
    quiet = True
    for key in sorted({*present, *newest}):
        row, known = present.get(key), newest.get(key)
        stream, number = ("", 0) if known is None else known[1:]
        reason = _reason(secret, table, row, None if known is None else known[0])
        if row is not None and known is None and _authentic(secret, table, row):
            if row["revision"] > forgotten:
                unknown.append(_bad(table, key, reason, stream, number))
        elif reason:
            quiet = False
            yield _bad(table, key, reason, stream, number)
    if quiet:
        yield from unknown


def _reason(secret: bytes, table: Table, row: Any, known: Written | None) -> str:
    """Return what is wrong with a row of a broken bucket; empty when it is as the ledger says, or newer."""
    if row is None:
        return "removed" if known is not None and known.mac else ""
    if known is None:
        return "inserted"
    if not _authentic(secret, table, row):
        return "edited"
    if row["revision"] > known.revision:
        return ""
    same = row["revision"] == known.revision and row["mac"].hex() == known.mac
    return "" if same else "put back"


def _authentic(secret: bytes, table: Table, row: Any) -> bool:
    try:
        verified(secret, table, row)
    except IntegrityFailure:
        return False
    return True


async def _astray(connection: asyncpg.Connection[Any], table: Table, into: Checked) -> None:
    """Name rows that stand in a bucket that there is none of, where nobody looks for them."""
    for row in await connection.fetch(
        f"SELECT key FROM {table.name} WHERE bucket < 0 OR bucket >= $1 ORDER BY key LIMIT $2",  # noqa: S608
        table.buckets,
        MOST - len(into.bad),
    ):
        into.rows += 1
        into.bad.append(_bad(table, row["key"], "inserted"))


def _bad(table: Table, key: str, reason: str, stream: str = "", number: int = 0) -> BadRow:
    return BadRow(table=table.name, key=key, reason=reason, stream=stream, number=number)
