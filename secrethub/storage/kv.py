"""Secrets of the key/value engine: heads, versions and lists.

A head (one a path) says which versions exist; a version holds one sealed value. Both carry an HMAC over
every column that decides what is answered. Instants are microseconds since the epoch, 0 for never.
A write is one statement, conditional on the head's revision and on the fence of its decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg

from secrethub.crypto.aead import Place
from secrethub.crypto.digests import equal, mac, sha256
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure

_HIGHEST = "\U0010ffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A secret's state. ``revision`` counts its changes."""

    store: str
    path: str
    id: str
    revision: int
    current_version: int
    oldest_version: int
    max_versions: int
    cas_required: bool
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version. ``sealed`` is None once destroyed."""

    id: str
    version: int
    created_at: int
    deleted_at: int
    destroyed: bool
    sealed: bytes | None


def head_mac(key: bytes, head: Head) -> bytes:
    """Return the head's authentication."""
    return mac(
        key,
        "kv-secret",
        head.store,
        head.path,
        head.id,
        head.revision,
        head.current_version,
        head.oldest_version,
        head.max_versions,
        head.cas_required,
        head.created_at,
        head.updated_at,
    )


def version_mac(key: bytes, version: Version) -> bytes:
    """Return the version's authentication."""
    return mac(
        key,
        "kv-version",
        version.id,
        version.version,
        version.created_at,
        version.deleted_at,
        version.destroyed,
        b"" if version.sealed is None else sha256("kv-sealed", version.sealed),
    )


def value_place(identifier: str, version: int) -> Place:
    """Return where a version's value is at home."""
    return Place(table="kv_versions", column="sealed", row=identifier, version=version)


async def load(
    connection: asyncpg.Connection[Any], keyring: Keyring, store: str, path: str, version: int | None = None
) -> tuple[Head, Version | None] | None:
    """Return a secret's head and the version asked for (by default the current one).

    Raises:
        IntegrityFailure: head or version is not authentic.
    """
    row = await connection.fetchrow(
        """SELECT s.*, v.version AS v_version, v.created_at AS v_created_at, v.deleted_at, v.destroyed,
                  v.sealed, v.mac AS v_mac
           FROM kv_secrets s
           LEFT JOIN kv_versions v ON v.id = s.id AND v.version = COALESCE($3, s.current_version)
           WHERE s.store = $1 AND s.path = $2""",
        store,
        path,
        version,
    )
    if row is None:
        return None
    key = keyring.derived("kv")
    head = _head(row, key)
    if row["v_version"] is None:
        wanted = head.current_version if version is None else version
        if head.oldest_version <= wanted <= head.current_version and head.current_version:
            raise IntegrityFailure("kv_versions", f"{path} version {wanted}", "the version was removed")
        return head, None
    return head, _verified_version(row, key, head)


def _verified_version(row: Any, key: bytes, head: Head) -> Version:
    version = Version(
        id=head.id,
        version=row["v_version"],
        created_at=row["v_created_at"],
        deleted_at=row["deleted_at"],
        destroyed=row["destroyed"],
        sealed=row["sealed"],
    )
    if not equal(version_mac(key, version), row["v_mac"]):
        raise IntegrityFailure("kv_versions", f"{head.path} version {version.version}", "the row was edited")
    return version


async def versions(connection: asyncpg.Connection[Any], keyring: Keyring, head: Head) -> list[Version]:
    """Return every version of a secret, oldest first.

    Raises:
        IntegrityFailure: a version is not authentic or is missing.
    """
    rows = await connection.fetch(
        """SELECT version AS v_version, created_at AS v_created_at, deleted_at, destroyed, sealed,
                  mac AS v_mac
           FROM kv_versions WHERE id = $1 AND version BETWEEN $2 AND $3 ORDER BY version""",
        head.id,
        head.oldest_version,
        head.current_version,
    )
    if head.current_version and len(rows) != head.current_version - head.oldest_version + 1:
        raise IntegrityFailure("kv_versions", head.path, "a version was removed")
    key = keyring.derived("kv")
    return [_verified_version(row, key, head) for row in rows]


def _head(row: Any, key: bytes) -> Head:
    head = Head(
        store=row["store"],
        path=row["path"],
        id=row["id"],
        revision=row["revision"],
        current_version=row["current_version"],
        oldest_version=row["oldest_version"],
        max_versions=row["max_versions"],
        cas_required=row["cas_required"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
    if not equal(head_mac(key, head), row["mac"]):
        raise IntegrityFailure("kv_secrets", head.path, "the row was edited")
    return head


async def mark_deleted(
    connection: asyncpg.Connection[Any],
    keyring: Keyring,
    version: Version,
    change_key: str,
) -> None:
    """Write ``version`` with its new ``deleted_at``; inside a transaction that holds the fence."""
    await connection.execute(
        "UPDATE kv_versions SET deleted_at = $3, mac = $4 WHERE id = $1 AND version = $2",
        version.id,
        version.version,
        version.deleted_at,
        version_mac(keyring.derived("kv"), version),
    )
    await connection.execute(
        "INSERT INTO changes (kind, key, version) VALUES ('kv', $1, $2)", change_key, version.version
    )


async def lock_head(connection: asyncpg.Connection[Any], store: str, path: str) -> bool:
    """Lock a secret's head until the transaction ends; tell whether it exists."""
    row = await connection.fetchval(
        "SELECT 1 FROM kv_secrets WHERE store = $1 AND path = $2 FOR UPDATE", store, path
    )
    return row is not None


async def children(
    connection: asyncpg.Connection[Any], store: str, prefix: str, *, after: str = "", limit: int = 10_000
) -> list[str]:
    """Return what lies directly below ``prefix``, folders with a trailing slash, in order.

    The query jumps from child to child along the index, so its cost does not grow with what lies
    deeper.

    Args:
        connection: for reading.
        store: the store's id.
        prefix: "" or a path that ends with a slash.
        after: only names after this one.
        limit: names at most.
    """
    names: list[str] = []
    position = prefix + (after + _HIGHEST if after.endswith("/") else after)
    while len(names) < limit:
        rows = await connection.fetch(
            """SELECT path FROM kv_secrets
               WHERE store = $1 AND path > $2 AND path < $3 ORDER BY path LIMIT 200""",
            store,
            position,
            prefix + _HIGHEST,
        )
        if not rows:
            return names
        for row in rows:
            rest = row["path"][len(prefix) :]
            name, slash, _ = rest.partition("/")
            if slash:
                if not names or names[-1] != name + "/":
                    names.append(name + "/")
                position = prefix + name + "/" + _HIGHEST
            else:
                names.append(name)
                position = row["path"]
            if len(names) >= limit:
                return names
    return names
