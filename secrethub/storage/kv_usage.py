"""Who read a secret, and when it was read last: what the ledger says of it.

Both use one index over the entries of successful reads. An entry that is shown is authenticated: its
digest, made again over it and over the digest before it, carries the cluster's signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg

from secrethub.audit.event import GENESIS, Entry, entry_hash, entry_signature
from secrethub.crypto.digests import equal
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure
from secrethub.storage.kv import HIGHEST, Head, checked_head
from secrethub.storage.ledger_read import record_of

SCANNED = 500
"""Secrets whose last read one page looks up."""

_READS = "outcome = 'done' AND operation IN ('kv.read', 'kv.compare')"
"""As in the index ``audit_entries_reads``, or it would not be used."""


class Stay(NamedTuple):
    """Where the ledger has requests that read secrets of a store, while the store was at one path.

    Attributes:
        start: what stands before a secret's path in those requests.
        since: instant, the first.
        until: instant, the first after it.
    """

    start: str
    since: int
    until: int


class Position(NamedTuple):
    """A place among the entries, the newest first."""

    at: int
    stream: str
    number: int


FOREVER = (1 << 63) - 1
END = Position(FOREVER, "", 0)
"""Before the newest entry."""


async def reads_of(
    connection: asyncpg.Connection[Any],
    keyring: Keyring,
    stays: Sequence[Stay],
    path: str,
    *,
    after: Position = END,
    limit: int = 100,
) -> list[Entry]:
    """Return successful reads, the newest first.

    Args:
        connection: for reading.
        keyring: for the authentication.
        stays: where requests have secrets of the store.
        path: of the secret.
        after: only entries older than this.
        limit: entries at most.

    Raises:
        IntegrityFailure: an entry is not authentic.
    """
    rows = await connection.fetch(
        f"""SELECT e.*, COALESCE(before.hash, pruned.hash) AS previous
            FROM unnest($6::text[], $7::bigint[], $8::bigint[]) AS stay(start, since, until)
            CROSS JOIN LATERAL (SELECT stay.start || $1 AS path) AS wanted
            CROSS JOIN LATERAL (
                SELECT * FROM audit_entries
                WHERE hashtextextended(path, 0) = hashtextextended(wanted.path, 0) AND {_READS}
                      AND audit_entries.path = wanted.path AND at >= stay.since AND at < stay.until
                      AND at <= $2 AND (at, stream, number) < ($2, $3, $4)
                ORDER BY at DESC, stream DESC, number DESC LIMIT $5) AS e
            LEFT JOIN audit_entries AS before ON before.stream = e.stream AND before.number = e.number - 1
            LEFT JOIN audit_pruned AS pruned ON pruned.stream = e.stream AND pruned.number = e.number - 1
            ORDER BY e.at DESC, e.stream DESC, e.number DESC LIMIT $5""",  # noqa: S608 - a constant of ours
        path,
        *after,
        limit,
        *map(list, zip(*stays, strict=True)),
    )
    key = keyring.derived("audit-sign")
    return [_authentic(row, key) for row in rows]


def _authentic(row: Any, key: bytes) -> Entry:
    record = record_of(row)
    entry = record.entry
    previous = GENESIS if entry.number == 1 else row["previous"]
    if previous is None or entry_hash(previous, entry) != record.hash:
        raise IntegrityFailure("audit_entries", f"{entry.stream} {entry.number}", "the entry was edited")
    if not equal(entry_signature(key, record.hash), record.signature):
        raise IntegrityFailure("audit_entries", f"{entry.stream} {entry.number}", "its signature is wrong")
    return entry


async def last_reads(
    connection: asyncpg.Connection[Any],
    keyring: Keyring,
    store: str,
    prefix: str,
    stays: Sequence[Stay],
    *,
    after: str = "",
) -> tuple[list[tuple[Head, int]], str]:
    """Return secrets in order of their paths, each with the instant of its last read, 0 for none.

    Args:
        connection: for reading.
        keyring: for the authentication.
        store: the store's id.
        prefix: "" or a path that ends with a slash: only what lies below.
        stays: where requests have secrets of the store.
        after: only paths after this one.

    Returns:
        At most :data:`SCANNED` of them, and the last path, or "" when there is nothing after it.

    Raises:
        IntegrityFailure: a head is not authentic.
    """
    rows = await connection.fetch(
        f"""SELECT s.*, (SELECT max(last.at)
                         FROM unnest($5::text[], $6::bigint[], $7::bigint[]) AS stay(start, since, until)
                         CROSS JOIN LATERAL (
                             SELECT at FROM audit_entries
                             WHERE hashtextextended(path, 0) = hashtextextended(stay.start || s.path, 0)
                                   AND {_READS} AND audit_entries.path = stay.start || s.path
                                   AND at >= stay.since AND at < stay.until
                             ORDER BY at DESC LIMIT 1) AS last) AS last_read
            FROM (SELECT * FROM kv_secrets WHERE store = $1 AND path > $2 AND path < $3
                  ORDER BY path LIMIT $4) AS s ORDER BY s.path""",  # noqa: S608 - a constant of ours
        store,
        max(prefix, after),
        prefix + HIGHEST,
        SCANNED,
        *map(list, zip(*stays, strict=True)),
    )
    key = keyring.derived("kv")
    found = [(checked_head(row, key), row["last_read"] or 0) for row in rows]
    return found, rows[-1]["path"] if len(rows) == SCANNED else ""
