"""Leases in the database: what a row is.

Rows carry an HMAC over every column that says what a lease is, and what its engine knows is sealed to the
lease's id and state. Deadlines are in the database's time. How leases are made, found, renewed and ended is
in ``lease_makings.py``, ``lease_lookups.py``, ``lease_renewals.py`` and ``lease_ends.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from secrethub.audit.state import written_row
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import equal
from secrethub.crypto.keyring import Keyring
from secrethub.errors import DecryptionFailed, IntegrityFailure
from secrethub.leases.lease import Lease, State, lease_mac
from secrethub.storage.database import Database

TABLE = "leases"
NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The database's time in microseconds."""

_VERSIONS: Mapping[State, int] = {"intent": 1, "live": 2}
_KEY = "lease"
_LAST_REVISION = 1 << 62
COLUMNS = """id, revision, state, mount, role, target, owner, owner_name, lineage, issued_at, renewed_at,
              expires_at, max_expires_at, renewable, sealed, mac"""


async def any_of(connection: asyncpg.Connection[Any], mount: str, target: str) -> bool:
    """Tell whether there is a lease or an intent of a mount's target."""
    found = await connection.fetchval(
        "SELECT true FROM leases WHERE mount = $1 AND target = $2 LIMIT 1", mount, target
    )
    return bool(found)


async def known_markers(database: Database, markers: Sequence[str]) -> set[str]:
    """Return those of the markers that a lease or an intent has.

    Raises:
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        rows = await connection.fetch(
            "SELECT right(id, 24) AS marker FROM leases WHERE right(id, 24) = ANY($1::text[])", markers
        )
    return {row["marker"] for row in rows}


def authentication(keyring: Keyring, lease: Lease) -> bytes:
    """Return the authentication of a lease's row."""
    return lease_mac(keyring.derived(_KEY), lease)


def written(keyring: Keyring, lease: Lease) -> dict[str, Any]:
    """Return what the ledger keeps of a lease's row."""
    return written_row(TABLE, lease.id, lease.revision, authentication(keyring, lease))


def ended(lease: Lease) -> dict[str, Any]:
    """Return what the ledger keeps of the end of a lease's row."""
    return written_row(TABLE, lease.id, lease.revision + 1, b"")


def forgotten(identifier: str) -> dict[str, Any]:
    """Return what the ledger keeps of the end of a row, whatever it says: an id is never given again."""
    return written_row(TABLE, identifier, _LAST_REVISION, b"")


def sealed_data(keyring: Keyring, identifier: str, state: State, data: Mapping[str, Any]) -> bytes:
    """Seal what an engine needs to know of a lease."""
    return keyring.seal(msgspec.json.encode(data), _place(identifier, state))


def opened_data(keyring: Keyring, lease: Lease) -> dict[str, Any]:
    """Open what an engine needs to know of a lease.

    Raises:
        IntegrityFailure: it does not open.
    """
    try:
        content = keyring.open(lease.sealed, _place(lease.id, lease.state))
    except DecryptionFailed as exc:
        raise IntegrityFailure(TABLE, lease.id, "it does not open") from exc
    return msgspec.json.decode(content, type=dict[str, Any])


def resealed(keyring: Keyring, identifier: str, state: State, sealed: bytes) -> bytes:
    """Return what is sealed, sealed with the newest data key.

    Raises:
        DecryptionFailed: it does not open.
    """
    place = _place(identifier, state)
    return keyring.seal(keyring.open(sealed, place), place)


def values(keyring: Keyring, lease: Lease) -> tuple[Any, ...]:
    """Return the columns of a lease's row, its authentication the last."""
    return (
        lease.id,
        lease.revision,
        lease.state,
        lease.mount,
        lease.role,
        lease.target,
        lease.owner,
        lease.owner_name,
        list(lease.lineage),
        lease.issued_at,
        lease.renewed_at,
        lease.expires_at,
        lease.max_expires_at,
        lease.renewable,
        lease.sealed,
        authentication(keyring, lease),
    )


def verified(keyring: Keyring, row: asyncpg.Record) -> Lease:
    """Return the lease of a row.

    Raises:
        IntegrityFailure: the row is not authentic.
    """
    lease = Lease(
        id=row["id"],
        revision=row["revision"],
        state=row["state"],
        mount=row["mount"],
        role=row["role"],
        target=row["target"],
        owner=row["owner"],
        owner_name=row["owner_name"],
        lineage=tuple(row["lineage"]),
        issued_at=row["issued_at"],
        renewed_at=row["renewed_at"],
        expires_at=row["expires_at"],
        max_expires_at=row["max_expires_at"],
        renewable=row["renewable"],
        sealed=row["sealed"],
    )
    if not equal(authentication(keyring, lease), row["mac"]):
        raise IntegrityFailure(TABLE, lease.id, "the row was edited")
    return lease


def _place(identifier: str, state: State) -> Place:
    return Place(table="leases", column="sealed", row=identifier, version=_VERSIONS[state])
