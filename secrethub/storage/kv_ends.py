"""The ends of secrets: that one was removed is as sure as what it was.

A secret that is gone leaves no row that could be authenticated. So its end is a row of its own, written in
the transaction that removes the secret, for whoever verifies the state of the database: a secret that the
ledger knows may be missing only when its end is here or in the ledger. The latter is written after the
commit, and is missing when the process dies in between.

An end is kept as long as the ledger has entries that may speak of its secret.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import asyncpg

from secrethub.audit.state import SECRETS, written_row
from secrethub.crypto.digests import equal, mac
from secrethub.crypto.keyring import Keyring

_SLACK = 86_400_000_000
"""Microseconds by which entries may be later than what they speak of, and clocks may differ."""


async def note(connection: asyncpg.Connection[Any], keyring: Keyring, ended: Mapping[str, int]) -> None:
    """Note, in the caller's transaction, that secrets end, by their ids; each with its last revision."""
    key = keyring.derived("kv")
    await connection.execute(
        "INSERT INTO kv_ends (id, revision, mac) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[])",
        list(ended),
        [_after(last) for last in ended.values()],
        [_end_mac(key, identifier, _after(last)) for identifier, last in ended.items()],
    )


def written(identifier: str, last: int) -> dict[str, Any]:
    """Return what the ledger keeps of the end of a secret whose last revision was ``last``."""
    return written_row(SECRETS, identifier, _after(last), b"")


async def among(
    connection: asyncpg.Connection[Any], keyring: Keyring, identifiers: Collection[str]
) -> dict[str, int]:
    """Return which of these secrets have an end that is authentic, with its revision."""
    key = keyring.derived("kv")
    rows = await connection.fetch(
        "SELECT id, revision, mac FROM kv_ends WHERE id = ANY($1::text[])", list(identifiers)
    )
    return {
        row["id"]: row["revision"]
        for row in rows
        if equal(_end_mac(key, row["id"], row["revision"]), row["mac"])
    }


async def forget(connection: asyncpg.Connection[Any], limit: int) -> int:
    """Remove ends that are older than every entry of the ledger; return how many, at most ``limit``."""
    count: int = await connection.fetchval(
        """WITH gone AS (
               DELETE FROM kv_ends WHERE id IN (
                   SELECT id FROM kv_ends
                   WHERE at < to_timestamp(((SELECT min(at) FROM audit_entries) - $1) / 1000000.0)
                   ORDER BY at LIMIT $2)
               RETURNING 1)
           SELECT count(*) FROM gone""",
        _SLACK,
        limit,
    )
    return count


def _after(last: int) -> int:
    return last + 1


def _end_mac(key: bytes, identifier: str, revision: int) -> bytes:
    return mac(key, "kv-end", identifier, revision)
