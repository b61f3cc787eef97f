"""Secrets of the key/value engine: heads, versions and lists.

A head (one a path) says which versions exist and in which state each of them is, under an HMAC over every
column; a version's own row holds nothing but its sealed value, which opens at its place only. So no version
can be put back into a former state by itself. Each change of a head raises its revision; a head below a
revision that this process was told of was put back as a whole (``engines/kv/cache.py``). The end of a secret
is announced as revision 0: what is made at its path afterwards begins anew.

Instants are microseconds since the epoch, 0 for never. A change is one statement, or one transaction,
conditional on the head's revision and on the fence of its decision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import asyncpg
import msgspec

from secrethub.audit.state import SECRETS, written_row
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import equal, mac
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure
from secrethub.storage import kv_ends

HIGHEST = "\U0010ffff"

_Columns: TypeAlias = tuple[str, str, str, int, int, int, int, bool, int, str, int, int, str]


class State(NamedTuple):
    """What holds of one version; ``deleted_at`` may be in the future, when that was decided at its making."""

    created_at: int
    deleted_at: int = 0
    destroyed: bool = False

    def gone(self, now: int) -> bool:
        """Tell whether its value is not to be had at the instant ``now``."""
        return self.destroyed or 0 < self.deleted_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A secret's state.

    Attributes:
        store: UUID of the mount.
        path: below it.
        id: UUID, new for every secret that is made.
        revision: counts its changes.
        current_version: 0 when there is none.
        oldest_version: that is kept.
        max_versions: to keep; 0 for the mount's.
        cas_required: whether a write must say which version it follows.
        delete_version_after: seconds that a new version is readable; 0 for the mount's.
        custom_metadata: a JSON object of text by text, or empty.
        versions: the states of those that are kept, the oldest first.
    """

    store: str
    path: str
    id: str
    revision: int
    current_version: int
    oldest_version: int
    max_versions: int
    cas_required: bool
    delete_version_after: int
    custom_metadata: str
    created_at: int
    updated_at: int
    versions: tuple[State, ...]

    def state(self, version: int) -> State | None:
        """Return what holds of a version, or None when it is not kept."""
        place = version - self.oldest_version
        return self.versions[place] if 0 <= place < len(self.versions) else None

    def changed(self, states: Mapping[int, State], now: int) -> Head:
        """Return the head after versions, all of them kept, came into new states."""
        versions = list(self.versions)
        for version, state in states.items():
            versions[version - self.oldest_version] = state
        return replace(self, revision=self.revision + 1, updated_at=now, versions=tuple(versions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version. ``sealed`` is None once destroyed."""

    version: int
    state: State
    sealed: bytes | None = field(repr=False)


def encode_states(versions: tuple[State, ...]) -> str:
    """Return the one text of states."""
    return msgspec.json.encode(versions).decode()


def columns(head: Head) -> _Columns:
    """Return the columns of a head's row but the last, its authentication, which is over them all."""
    return (
        head.store,
        head.path,
        head.id,
        head.revision,
        head.current_version,
        head.oldest_version,
        head.max_versions,
        head.cas_required,
        head.delete_version_after,
        head.custom_metadata,
        head.created_at,
        head.updated_at,
        encode_states(head.versions),
    )


def head_mac(key: bytes, head: Head) -> bytes:
    """Return the head's authentication."""
    return mac(key, "kv-secret", *columns(head))


def written(keyring: Keyring, head: Head) -> dict[str, Any]:
    """Return what the ledger keeps of a head that was written."""
    return written_row(SECRETS, head.id, head.revision, head_mac(keyring.derived("kv"), head))


def value_place(identifier: str, version: int) -> Place:
    """Return where a version's value is at home."""
    return Place(table="kv_versions", column="sealed", row=identifier, version=version)


async def load(
    connection: asyncpg.Connection[Any], keyring: Keyring, store: str, path: str, version: int | None = None
) -> tuple[Head, Version | None] | None:
    """Return a secret's head and the version asked for (by default the current one).

    Raises:
        IntegrityFailure: the head is not authentic, or the version was removed.
    """
    row = await connection.fetchrow(
        """SELECT s.*, v.sealed
           FROM kv_secrets s
           LEFT JOIN kv_versions v ON v.id = s.id AND v.version = COALESCE($3, s.current_version)
           WHERE s.store = $1 AND s.path = $2""",
        store,
        path,
        version,
    )
    if row is None:
        return None
    head = checked_head(row, keyring.derived("kv"))
    wanted = head.current_version if version is None else version
    state = head.state(wanted)
    if state is None:
        return head, None
    if row["sealed"] is None and not state.destroyed:
        raise IntegrityFailure("kv_versions", f"{path} version {wanted}", "the version was removed")
    return head, Version(version=wanted, state=state, sealed=None if state.destroyed else row["sealed"])


async def lock_head(
    connection: asyncpg.Connection[Any], keyring: Keyring, store: str, path: str
) -> Head | None:
    """Return a secret's head, locked until the transaction ends.

    Raises:
        IntegrityFailure: it is not authentic.
    """
    row = await connection.fetchrow(
        "SELECT * FROM kv_secrets WHERE store = $1 AND path = $2 FOR UPDATE", store, path
    )
    return None if row is None else checked_head(row, keyring.derived("kv"))


def checked_head(row: Any, key: bytes) -> Head:
    """Return the head of a row of ``kv_secrets``.

    Raises:
        IntegrityFailure: it is not authentic.
    """
    try:
        versions = msgspec.json.decode(row["versions"], type=tuple[State, ...])
    except msgspec.MsgspecError:
        raise IntegrityFailure("kv_secrets", row["path"], "the row was edited") from None
    head = Head(
        store=row["store"],
        path=row["path"],
        id=row["id"],
        revision=row["revision"],
        current_version=row["current_version"],
        oldest_version=row["oldest_version"],
        max_versions=row["max_versions"],
        cas_required=row["cas_required"],
        delete_version_after=row["delete_version_after"],
        custom_metadata=row["custom_metadata"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        versions=versions,
    )
    if not equal(head_mac(key, head), row["mac"]):
        raise IntegrityFailure("kv_secrets", head.path, "the row was edited")
    return head


async def insert_head(
    connection: asyncpg.Connection[Any], keyring: Keyring, head: Head, change_key: str
) -> bool:
    """Write a new secret without any version; tell whether there was none at its path."""
    made = await connection.fetchval(
        """INSERT INTO kv_secrets (store, path, id, revision, current_version, oldest_version, max_versions,
                  cas_required, delete_version_after, custom_metadata, created_at, updated_at, versions, mac)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
           ON CONFLICT (store, path) DO NOTHING RETURNING true""",
        *columns(head),
        head_mac(keyring.derived("kv"), head),
    )
    if made:
        await _announce(connection, change_key, head.current_version, head.revision)
    return bool(made)


async def update_head(
    connection: asyncpg.Connection[Any], keyring: Keyring, head: Head, change_key: str
) -> None:
    """Write a head that was loaded with its lock; inside a transaction that holds the fence."""
    await connection.execute(
        """UPDATE kv_secrets SET revision = $3, max_versions = $4, cas_required = $5,
                  delete_version_after = $6, custom_metadata = $7, updated_at = $8, versions = $9, mac = $10
           WHERE store = $1 AND path = $2""",
        head.store,
        head.path,
        head.revision,
        head.max_versions,
        head.cas_required,
        head.delete_version_after,
        head.custom_metadata,
        head.updated_at,
        encode_states(head.versions),
        head_mac(keyring.derived("kv"), head),
    )
    await _announce(connection, change_key, head.current_version, head.revision)


async def remove_values(
    connection: asyncpg.Connection[Any], identifier: str, versions: Collection[int]
) -> None:
    """Remove the values of versions whose head says that they are destroyed."""
    await connection.execute(
        "DELETE FROM kv_versions WHERE id = $1 AND version = ANY($2::integer[])", identifier, list(versions)
    )


async def remove_head(
    connection: asyncpg.Connection[Any], keyring: Keyring, head: Head, change_key: str
) -> None:
    """Remove a secret that was loaded with its lock, and all its versions."""
    await kv_ends.note(connection, keyring, {head.id: head.revision})
    await connection.execute("DELETE FROM kv_secrets WHERE store = $1 AND path = $2", head.store, head.path)
    await _announce(connection, change_key, 0, 0)


async def _announce(
    connection: asyncpg.Connection[Any], change_key: str, version: int, revision: int
) -> None:
    await connection.execute(
        "INSERT INTO changes (kind, key, version, revision) VALUES ('kv', $1, $2, $3)",
        change_key,
        version,
        revision,
    )


async def remove_some(
    connection: asyncpg.Connection[Any], keyring: Keyring, store: str, limit: int
) -> dict[str, int]:
    """Remove secrets of a store with all their versions; return their ids and last revisions, if any is left.

    Args:
        connection: inside a transaction that holds the fence.
        keyring: for the authentication of their ends.
        store: the store's id.
        limit: how many at most.
    """
    rows = await connection.fetch(
        """WITH gone AS (
                DELETE FROM kv_secrets WHERE store = $1 AND path IN (
                    SELECT path FROM kv_secrets WHERE store = $1 ORDER BY path LIMIT $2)
                RETURNING path, id, revision),
            told AS (INSERT INTO changes (kind, key, version) SELECT 'kv', $1 || '/' || path, 0 FROM gone)
            SELECT id, revision FROM gone""",
        store,
        limit,
    )
    gone = {row["id"]: row["revision"] for row in rows}
    await kv_ends.note(connection, keyring, gone)
    return gone


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
    position = prefix + (after + HIGHEST if after.endswith("/") else after)
    while len(names) < limit:
        rows = await connection.fetch(
            """SELECT path FROM kv_secrets
               WHERE store = $1 AND path > $2 AND path < $3 ORDER BY path LIMIT 200""",
            store,
            position,
            prefix + HIGHEST,
        )
        if not rows:
            return names
        for row in rows:
            rest = row["path"][len(prefix) :]
            name, slash, _ = rest.partition("/")
            if slash:
                if not names or names[-1] != name + "/":
                    names.append(name + "/")
                position = prefix + name + "/" + HIGHEST
            else:
                names.append(name)
                position = row["path"]
            if len(names) >= limit:
                return names
    return names
