"""Records on their way into the database: the arguments of ``ledger_append`` and ``ledger_commit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from secrethub.audit.event import Row, StreamHead

BEHIND = "SH001"
"""SQLSTATE of an append to a stream that does not end where its writer knows it to."""

_DURABLE = "current_setting('synchronous_commit') <> 'off'"
_PRESENT = "(extract(epoch FROM now()) * 1000000)::bigint"
_SLOW_CLOCK = 60_000_000
"""Microseconds that a writer's clock may be behind the database's."""
_IF = f"WHERE {_DURABLE} AND $8 >= {_PRESENT} - {_SLOW_CLOCK}"
"""Without it nothing is written, and no row comes back: the setting may change while sessions are open, and
an entry that is dated too early would be too old for sinks, and old enough to be archived, at once."""
WHY = f"""SELECT {_DURABLE} AS durable, {_PRESENT} AS present, EXISTS (
              SELECT FROM audit_streams WHERE stream = $1 AND number = $2 AND hash = $3) AS written"""  # noqa: S608
"""Tells which it was where no row came back: a cluster whose row is gone has none either."""
LATER = f"SELECT GREATEST($1, {_PRESENT})"
APPEND = f"SELECT ledger_append($1, $2::text::json, $3, $4, $5, $6, $7) {_IF}"
COMMIT = f"SELECT * FROM ledger_commit($1, $2::text::json, $3, $4, $5, $6, $7, $9) {_IF}"  # noqa: S608 - ours
NOT_DURABLE = "synchronous_commit is off: PostgreSQL could lose what was answered"
NEWEST_OF = "SELECT number, hash FROM audit_entries WHERE stream = $1 ORDER BY number DESC LIMIT 1"

_encode = msgspec.json.Encoder().encode


def appended(before: StreamHead, rows: Sequence[Row]) -> tuple[Any, ...]:
    """Return the arguments that append ``rows`` to the stream that ends at ``before``.

    Args:
        before: where the stream ends; number 0 for one that begins.
        rows: at least one, in order, all of one instant.
    """
    _, number, at, *_, digest, signature = rows[-1]
    return before.stream, _encoded(rows), before.number, before.head, number, digest, signature, at


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
