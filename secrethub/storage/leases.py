"""Leases in the database: planned, made and looked up. See ``lease_renewals.py`` and ``lease_ends.py``, too.

A lease begins as an intent, committed before anything happens at its target. It becomes live in the same row
and in one statement, so there is never both or neither. That fails once somebody has begun to take the intent
back, or its owner has ended: whoever made something at the target then has to undo it.

Rows carry an HMAC over every column that says what a lease is, and what its engine knows is sealed to the
lease's id and state. Deadlines are in the database's time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from secrethub.audit.state import written_row
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import equal
from secrethub.crypto.keyring import Keyring
from secrethub.errors import DecryptionFailed, IntegrityFailure
from secrethub.leases.deadlines import Terms, first_deadlines
from secrethub.leases.lease import Lease, State, lease_mac
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence, hold_shared

TABLE = "leases"
NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The database's time in microseconds."""
GRACE_SECONDS = 60.0
"""From the commit of an intent until it is taken back, unless it has become a lease."""

_VERSIONS: Mapping[State, int] = {"intent": 1, "live": 2}
_KEY = "lease"
_LAST_REVISION = 1 << 62
COLUMNS = """id, revision, state, mount, role, target, owner, owner_name, lineage, issued_at, renewed_at,
              expires_at, max_expires_at, renewable, sealed, mac"""


async def plan(
    database: Database, keyring: Keyring, fence: Fence, draft: Lease, held: Terms, data: Mapping[str, Any]
) -> Lease:
    """Commit the intent of a lease; from then on whatever is made at the target is also undone.

    Args:
        database: where.
        keyring: for the authentication.
        fence: what the decision rests on.
        draft: the lease without its instants and what is sealed.
        held: how long it lives.
        data: what its engine needs to undo whatever comes of it. No password.

    Raises:
        Stale: the decision was overtaken; nothing was planned.
        Unavailable: the database does not answer; nothing has happened at the target.
    """
    async with database.write() as connection:
        await hold_shared(connection, fence)
        now = await connection.fetchval(f"SELECT {NOW}")
        until, longest = first_deadlines(now, held)
        lease = dataclasses.replace(
            draft,
            state="intent",
            revision=1,
            issued_at=now,
            expires_at=until,
            max_expires_at=longest,
            sealed=sealed_data(keyring, draft.id, "intent", data),
        )
        await connection.execute(
            f"""INSERT INTO leases ({COLUMNS}, due_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                        clock_timestamp() + make_interval(secs => $17))""",  # noqa: S608 - constants of ours
            *values(keyring, lease),
            GRACE_SECONDS,
        )
    return lease


async def make(database: Database, keyring: Keyring, intent: Lease, data: Mapping[str, Any]) -> Lease | None:
    """Turn an intent into a lease; None when it is one no more: what was made at the target must go.

    Raises:
        Unavailable: the database does not answer; whether there is a lease is unknown, and the intent or the
            lease ends in its own time.
    """
    lease = dataclasses.replace(
        intent,
        state="live",
        revision=intent.revision + 1,
        sealed=sealed_data(keyring, intent.id, "live", data),
    )
    async with database.write() as connection:
        done = await connection.fetchval(
            """UPDATE leases SET state = 'live', revision = $2, sealed = $3, mac = $4,
                   due_at = to_timestamp($5::bigint / 1000000.0)
               WHERE id = $1 AND state = 'intent' AND attempts = 0 AND revoked_at IS NULL
                   AND due_at > clock_timestamp() RETURNING true""",
            lease.id,
            lease.revision,
            lease.sealed,
            authentication(keyring, lease),
            lease.expires_at,
        )
    return lease if done else None


async def find(database: Database, keyring: Keyring, identifier: str) -> tuple[Lease, int] | None:
    """Return a live lease that has not been revoked, and the database's time; None when there is none.

    Raises:
        IntegrityFailure: its row is not authentic.
        Unavailable: the database does not answer.
    """
    async with database.read() as connection:
        row = await connection.fetchrow(
            f"""SELECT {COLUMNS}, {NOW} AS now FROM leases
                WHERE id = $1 AND state = 'live' AND revoked_at IS NULL AND expires_at > {NOW}""",  # noqa: S608
            identifier,
        )
    return None if row is None else (verified(keyring, row), row["now"])


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
    fields = {field.name: row[field.name] for field in dataclasses.fields(Lease)}
    lease = Lease(**{**fields, "lineage": tuple(row["lineage"])})
    if not equal(authentication(keyring, lease), row["mac"]):
        raise IntegrityFailure(TABLE, lease.id, "the row was edited")
    return lease


def _place(identifier: str, state: State) -> Place:
    return Place(table="leases", column="sealed", row=identifier, version=_VERSIONS[state])
