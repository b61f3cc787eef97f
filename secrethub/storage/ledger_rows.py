"""Records on their way into the database: the arguments of ``ledger_append`` and ``ledger_commit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from secrethub.audit.event import Row, StreamHead

BEHIND = "SH001"
"""SQLSTATE of an append to a stream that does not end where its writer knows it to."""

_IF = "current_setting('synchronous_commit') <> 'off'"
_DURABLE = f"WHERE {_IF}"
"""Without it nothing is written, and no row comes back: the setting may change while sessions are open."""
IS_DURABLE = f"SELECT {_IF}"
"""Tells which it was where no row came back: a cluster whose row is gone has none either."""
APPEND = f"SELECT ledger_append($1, $2::text::json, $3, $4, $5, $6, $7) {_DURABLE}"
COMMIT = f"SELECT * FROM ledger_commit($1, $2::text::json, $3, $4, $5, $6, $7, $8) {_DURABLE}"  # noqa: S608 - ours
NOT_DURABLE = "synchronous_commit is off: PostgreSQL could lose what was answered"
NEWEST_OF = "SELECT number, hash FROM audit_entries WHERE stream = $1 ORDER BY number DESC LIMIT 1"

_encode = msgspec.json.Encoder().encode


def appended(before: StreamHead, rows: Sequence[Row]) -> tuple[Any, ...]:
    """Return the arguments that append ``rows`` to the stream that ends at ``before``.

    Args:
        before: where the stream ends; number 0 for one that begins.
        rows: at least one, in order.
    """
    _, number, *_, digest, signature = rows[-1]
    return before.stream, _encoded(rows), before.number, before.head, number, digest, signature


class _Stored(msgspec.Struct, frozen=True):
    """A record on its way into the database, without its stream; the names are those of ``ledger_append``."""

    n: int
    t: int
    k: str
    q: str
    a: str
    o: str
    p: str
    u: str
    r: str
    c: str
    d: str
    x: str
    h: bytes
    s: bytes


def _encoded(rows: Sequence[Row]) -> str:
    """Return the records as one JSON text, which costs a fraction of fourteen arrays."""
    return _encode([_Stored(*row[1:]) for row in rows]).decode()
