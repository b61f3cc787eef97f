"""Every column that holds what data keys seal: one table, from which values are sealed anew.

A value begins with the number of its data key, which the SQL function ``sealed_under`` reads and an index
keeps. So what is left under older keys is found, and counted, without looking at anything else.

In tables of authority sealed values are fields of the body, in base64.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.errors import DecryptionFailed, IntegrityFailure
from secrethub.storage import leases
from secrethub.storage.authority_change import Change
from secrethub.storage.authority_rows import (
    AUDIT_SETTINGS,
    CERTIFICATE_AUTHORITIES,
    CUBBYHOLES,
    ENGINE_CONFIGS,
    ENGINE_ROLES,
    ROTATIONS,
    TOKENS,
    Table,
)
from secrethub.storage.database import Database
from secrethub.storage.kv import value_place


@dataclass(frozen=True, slots=True)
class SealedField:
    """A field of a table of authority.

    Attributes:
        table: which table.
        name: the field's name, which is the column of its place.
        row: the row of its place, from the row's key and body.
        version: likewise.
    """

    table: Table
    name: str
    row: Callable[[str, Mapping[str, Any]], str] = lambda key, _: key
    version: Callable[[Mapping[str, Any]], int] = lambda _: 0

    def resealed(self, keyring: Keyring, key: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the body with the field sealed anew; None when it is empty or sealed newly already.

        Raises:
            DecryptionFailed: it does not open.
        """
        sealed = base64.b64decode(body.get(self.name) or "")
        if not sealed or int.from_bytes(sealed[1:5], "big") >= keyring.sealing:
            return None
        place = Place(
            table=self.table.name, column=self.name, row=self.row(key, body), version=self.version(body)
        )
        fresh = keyring.seal(keyring.open(sealed, place), place)
        return {**body, self.name: base64.b64encode(fresh).decode("ascii")}


def _uuid(_: str, body: Mapping[str, Any]) -> str:
    return str(body["uuid"])


FIELDS = (
    SealedField(TOKENS, "accessor"),
    SealedField(CUBBYHOLES, "entries"),
    SealedField(CUBBYHOLES, "response"),
    SealedField(CERTIFICATE_AUTHORITIES, "key", version=lambda body: int(body["key_number"])),
    SealedField(AUDIT_SETTINGS, "authorization", row=_uuid, version=lambda _: 1),
    SealedField(AUDIT_SETTINGS, "secret_access_key", row=_uuid, version=lambda _: 1),
    SealedField(ROTATIONS, "config", row=_uuid, version=lambda _: 1),
    SealedField(ROTATIONS, "work", row=_uuid, version=lambda body: int(body["runs"])),
    SealedField(ENGINE_CONFIGS, "secrets"),
    SealedField(ENGINE_ROLES, "secrets"),
)
"""What is sealed in tables of authority."""

VALUES: tuple[str, str] = ("kv_versions", "sealed")
"""What is sealed elsewhere: the values of static secrets …"""

LEASES: tuple[str, str] = ("leases", "sealed")
"""… and what engines know of leases."""

Column: TypeAlias = tuple[str, str]

COLUMNS: tuple[Column, ...] = (VALUES, LEASES, *((field.table.name, field.name) for field in FIELDS))
"""(table, column or field) of everything that data keys seal."""


_NAMED = {VALUES: "id || '/' || version", LEASES: "id"}
"""How damaged ones are told of, where they are no fields."""


async def left(database: Database, number: int) -> dict[Column, int]:
    """Count what is sealed under data keys older than ``number``, by table and column.

    Raises:
        Unavailable: the database does not answer.
    """
    counted: dict[Column, int] = {}
    async with database.read() as connection:
        for table, name in COLUMNS:
            counted[table, name] = await connection.fetchval(
                f"SELECT count(*) FROM {table} WHERE {_under(table, name)} < $1",  # noqa: S608 - ours
                number,
            )
    return counted


async def any_left(database: Database, number: int, but: Mapping[Column, Collection[str]]) -> bool:
    """Tell whether anything is sealed under data keys older than ``number``.

    Args:
        database: where.
        number: of a data key.
        but: what to leave out: ``<id>/<version>`` of values, ids of leases, buckets of fields as text.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        for table, name in COLUMNS:
            named = _NAMED.get((table, name), "bucket::text")
            if await connection.fetchval(
                f"""SELECT true FROM {table}
                    WHERE {_under(table, name)} < $1 AND {named} <> ALL($2::text[]) LIMIT 1""",  # noqa: S608 - ours
                number,
                list(but.get((table, name), ())),
            ):
                return True
    return False


async def reseal_values(
    connection: asyncpg.Connection[Any], keyring: Keyring, but: Collection[str], limit: int
) -> tuple[int, list[IntegrityFailure]]:
    """Seal values of static secrets anew, skipping those that somebody else is busy with.

    Args:
        connection: in a transaction that holds the fence.
        keyring: opens and seals.
        but: ``<id>/<version>`` of those to leave alone.
        limit: how many at most.

    Returns:
        How many were taken, and which of them do not open.
    """
    found = await connection.fetch(
        """SELECT id, version, sealed FROM kv_versions
           WHERE sealed_under(sealed) < $1 AND id || '/' || version <> ALL($2::text[])
           LIMIT $3 FOR UPDATE SKIP LOCKED""",
        keyring.sealing,
        list(but),
        limit,
    )
    fresh: list[tuple[str, int, bytes]] = []
    failures: list[IntegrityFailure] = []
    for row in found:
        identifier, version = row["id"], row["version"]
        place = value_place(identifier, version)
        try:
            fresh.append((identifier, version, keyring.seal(keyring.open(row["sealed"], place), place)))
        except DecryptionFailed:
            failures.append(IntegrityFailure("kv_versions", f"{identifier}/{version}", "it does not open"))
    await connection.executemany("UPDATE kv_versions SET sealed = $3 WHERE id = $1 AND version = $2", fresh)
    return len(found), failures


async def reseal_leases(
    connection: asyncpg.Connection[Any], keyring: Keyring, but: Collection[str], limit: int
) -> tuple[int, list[IntegrityFailure]]:
    """Seal what engines know of leases anew, as :func:`reseal_values` does; ``but`` are ids."""
    found = await connection.fetch(
        """SELECT id, state, sealed FROM leases
           WHERE sealed_under(sealed) < $1 AND id <> ALL($2::text[])
           LIMIT $3 FOR UPDATE SKIP LOCKED""",
        keyring.sealing,
        list(but),
        limit,
    )
    fresh: list[tuple[str, bytes]] = []
    failures: list[IntegrityFailure] = []
    for row in found:
        try:
            fresh.append((row["id"], leases.resealed(keyring, row["id"], row["state"], row["sealed"])))
        except (DecryptionFailed, KeyError):
            failures.append(IntegrityFailure("leases", row["id"], "it does not open"))
    await connection.executemany("UPDATE leases SET sealed = $2 WHERE id = $1", fresh)
    return len(found), failures


async def stale_rows(
    connection: asyncpg.Connection[Any], field: SealedField, number: int, but: Collection[str], limit: int
) -> tuple[int, list[str]] | None:
    """Return a bucket with fields sealed under keys older than ``number``, and keys of such rows in it.

    Args:
        connection: for reading.
        field: which one.
        number: of a data key.
        but: buckets to leave alone, as text.
        limit: rows at most.
    """
    table, under = field.table.name, _under(field.table.name, field.name)
    bucket = await connection.fetchval(
        f"SELECT bucket FROM {table} WHERE {under} < $1 AND bucket::text <> ALL($2::text[]) LIMIT 1",  # noqa: S608
        number,
        list(but),
    )
    if bucket is None:
        return None
    rows = await connection.fetch(
        f"SELECT key FROM {table} WHERE bucket = $1 AND {under} < $2 ORDER BY key LIMIT $3",  # noqa: S608
        bucket,
        number,
        limit,
    )
    return bucket, [row["key"] for row in rows]


async def reseal_rows(
    change: Change, keyring: Keyring, field: SealedField, bucket: int, keys: Collection[str]
) -> bool:
    """Seal a field of rows of one bucket anew; tell whether nobody else was busy with the bucket.

    Raises:
        IntegrityFailure: a row or its bucket is not authentic, or a field does not open.
    """
    free = await change.connection.fetchval(
        """SELECT true FROM authority_buckets WHERE table_name = $1 AND bucket = $2
           FOR UPDATE SKIP LOCKED""",
        field.table.name,
        bucket,
    )
    if not free:
        return False
    for key in keys:
        row = await change.get(field.table, key)
        if row is None:
            continue
        try:
            body = field.resealed(keyring, key, row.body)
        except (DecryptionFailed, ValueError) as exc:
            raise IntegrityFailure(field.table.name, key, f"its {field.name} does not open") from exc
        if body is not None:
            await change.put(field.table, key, body, owner=row.owner, expires_at=row.expires_at)
    return True


def _under(table: str, name: str) -> str:
    return f"sealed_under({name})" if (table, name) in _NAMED else f"sealed_under(body->>'{name}')"
