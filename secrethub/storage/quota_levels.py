"""The budgets that the gateways of a cluster share: one row each, a token bucket by the database's clock.

A gateway takes shares before it needs them, gives back what it did not use, and pays what it spent on
credit, all in one statement. So however many gateways there are, nothing is spent twice. A level below
nothing is a debt: no share is given until time has paid it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

_EXCHANGE = """
INSERT INTO quota_levels AS q (key, level, granted, at, blocked_until, expires_at)
SELECT e.key, e.whole - e.given, e.given, clock_timestamp(),
       CASE WHEN e.block > 0 AND e.need > e.given THEN clock_timestamp() + e.block * interval '1 second'
            ELSE '-infinity' END,
       clock_timestamp() + (e.burst / e.rate + e.block + 60) * interval '1 second'
FROM (
    SELECT u.*, LEAST(burst, burst + back) AS whole,
           GREATEST(0, LEAST(want, floor(burst + LEAST(back, 0)))) AS given
    FROM unnest($1::text[], $2::float8[], $3::float8[], $4::float8[], $5::float8[], $6::float8[],
                $7::float8[]) AS u(key, rate, burst, back, want, need, block)
) e
ORDER BY e.key
ON CONFLICT (key) DO UPDATE SET
    (level, granted, at, blocked_until, expires_at) = (
        SELECT now_there - given, given, clock_timestamp(),
               CASE WHEN block > 0 AND need > given AND NOT closed
                    THEN clock_timestamp() + block * interval '1 second' ELSE q.blocked_until END,
               clock_timestamp() + (burst / rate + block + 60) * interval '1 second'
        FROM (
            SELECT t.*, CASE WHEN closed THEN 0 ELSE GREATEST(0, LEAST(want, floor(now_there))) END AS given
            FROM (
                SELECT u.*, q.blocked_until > clock_timestamp() AS closed,
                       LEAST(u.burst, q.level + u.back
                             + u.rate * extract(epoch FROM clock_timestamp() - q.at)::float8) AS now_there
                FROM unnest($1::text[], $2::float8[], $3::float8[], $4::float8[], $5::float8[], $6::float8[],
                            $7::float8[]) AS u(key, rate, burst, back, want, need, block)
                WHERE u.key = q.key
            ) t
        ) v
    )
RETURNING key, level, granted,
    GREATEST(0, extract(epoch FROM blocked_until - clock_timestamp()))::float8 AS blocked
"""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says of one budget.

    Attributes:
        key: of the budget.
        rate: how fast it fills, a second.
        burst: what it holds at most.
        back: what is given back, negative for what was spent on credit.
        want: the share that is wished for.
        need: of it, what requests are waiting for.
        block: seconds for which it gives nothing once it was not enough; 0 for none.
    """

    key: str
    rate: float
    burst: float
    back: float
    want: float
    need: float
    block: float


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is given.

    Attributes:
        granted: how much.
        level: what is left for everybody; negative for a debt.
        blocked: seconds for which nothing more is given.
    """

    granted: float
    level: float
    blocked: float


async def exchange(connection: asyncpg.Connection[Any], asks: Sequence[Ask]) -> dict[str, Share]:
    """Settle budgets and return the shares by key. It must be committed before a share is spent."""
    columns = [[getattr(ask, name) for ask in asks] for name in Ask.__struct_fields__]
    rows = await connection.fetch(_EXCHANGE, *columns)
    return {
        row["key"]: Share(granted=row["granted"], level=row["level"], blocked=row["blocked"]) for row in rows
    }


async def forget(connection: asyncpg.Connection[Any]) -> None:
    """Remove budgets that have long been whole again."""
    await connection.execute("DELETE FROM quota_levels WHERE expires_at < now()")
