"""Rotations in the database: which have work to do, and what has become of those that ended.

A rotation is a row of authority (``engines/secret_rotation/record.py``) whose ``expires_at`` is when the next
work at it is due. Its past is a table of its own: authenticated row by row, and bounded.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from secrethub.crypto.digests import equal, mac
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure
from secrethub.rotation.steps import Outcome, Run, Trigger
from secrethub.storage.authority import ROTATIONS

KEPT = 1000
"""Ended runs of a rotation that are kept."""

_PURPOSE = "rotation"
_COLUMNS = "number, outcome, trigger, old_version, new_version, began_at, ended_at, missing, reason"


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A run that ended.

    Attributes:
        number: counts the runs of its rotation.
        outcome: how it ended.
        trigger: why it was begun.
        old_version: of the secret before it, 0 when there was none.
        new_version: that it promoted, 0 when it came to none.
        began_at: microseconds since the epoch.
        ended_at: likewise.
        missing: who had not confirmed in time.
        reason: why it was undone; no secret.
    """

    number: int
    outcome: Outcome
    trigger: Trigger
    old_version: int
    new_version: int
    began_at: int
    ended_at: int
    missing: int
    reason: str


def past_of(run: Run, now: int) -> Past:
    """Return what is kept of a run whose last step was done."""
    return Past(
        number=run.number,
        outcome=run.outcome,
        trigger=run.trigger,
        old_version=run.old_version,
        new_version=run.new_version,
        began_at=run.began_at,
        ended_at=now,
        missing=run.missing,
        reason=run.reason,
    )


async def due(connection: asyncpg.Connection[Any], limit: int) -> list[str]:
    """Return keys of rotations at which there is work now, those first that have waited longest."""
    # Not clock_timestamp(), which changes within a statement: an index could not be asked for it.
    rows = await connection.fetch(
        f"""SELECT key FROM {ROTATIONS.name} WHERE expires_at <= statement_timestamp()
            ORDER BY expires_at LIMIT $1""",  # noqa: S608 - a constant of ours
        limit,
    )
    return [row["key"] for row in rows]


async def next_due(connection: asyncpg.Connection[Any]) -> float | None:
    """Return in how many seconds there is work next; None for none."""
    seconds: float | None = await connection.fetchval(
        f"""SELECT extract(epoch FROM min(expires_at) - clock_timestamp())::float8
            FROM {ROTATIONS.name} WHERE expires_at IS NOT NULL"""  # noqa: S608
    )
    return seconds


async def add_past(connection: asyncpg.Connection[Any], keyring: Keyring, rotation: str, past: Past) -> None:
    """Keep a run that ended, in the transaction that ends it; what is beyond :data:`KEPT` goes.

    Args:
        connection: in that transaction.
        keyring: authenticates.
        rotation: its UUID.
        past: the run.
    """
    await connection.execute(
        f"""INSERT INTO rotation_history (rotation, {_COLUMNS}, mac)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",  # noqa: S608
        rotation,
        *msgspec.structs.astuple(past),
        _mac(keyring, rotation, past),
    )
    await connection.execute(
        "DELETE FROM rotation_history WHERE rotation = $1 AND number <= $2", rotation, past.number - KEPT
    )


async def history(
    connection: asyncpg.Connection[Any], keyring: Keyring, rotation: str, *, before: int, limit: int
) -> list[Past]:
    """Return ended runs, the newest first.

    Args:
        connection: for reading.
        keyring: authenticates.
        rotation: its UUID.
        before: only runs with lower numbers.
        limit: how many at most.

    Raises:
        IntegrityFailure: one was edited.
    """
    rows = await connection.fetch(
        f"""SELECT {_COLUMNS}, mac FROM rotation_history
            WHERE rotation = $1 AND number < $2 ORDER BY number DESC LIMIT $3""",  # noqa: S608
        rotation,
        before,
        limit,
    )
    found = []
    for row in rows:
        past = Past(**{name: row[name] for name in Past.__struct_fields__})
        if not equal(_mac(keyring, rotation, past), row["mac"]):
            raise IntegrityFailure("rotation_history", f"{rotation}/{past.number}", "the row was edited")
        found.append(past)
    return found


async def forget(connection: asyncpg.Connection[Any], rotation: str) -> None:
    """Remove the past of a rotation that is removed."""
    await connection.execute("DELETE FROM rotation_history WHERE rotation = $1", rotation)


def claim_of(rotation: str) -> str:
    """Return the name of the lock of whoever works at a rotation."""
    return f"rotation/{rotation}"


def _mac(keyring: Keyring, rotation: str, past: Past) -> bytes:
    return mac(keyring.derived(_PURPOSE), "rotation-history", rotation, *msgspec.structs.astuple(past))
