"""Removing tokens that are over, and what they left: nothing of it is any good, so it only takes room.

Over are tokens that have expired or are used up, and those whose parent is gone. Left over are accessors
and cubbyholes without a token; transactions leave none, so they speak of a row that could not be removed.
One node tidies at a time.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.engines.token.ending import remove_tokens
from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.authority import ACCESSORS, BINDINGS, CUBBYHOLES, TOKENS, Change, Table

LOCK = 7305086391846017
"""Held by the one who tidies."""

_BATCH = 1000
_ROUNDS = 200

_OVER = (
    (TOKENS, "expires_at < now() - interval '1 minute'"),
    # A minute, for the last request may be under way.
    (
        TOKENS,
        "body->'uses_left' = '0'::jsonb AND (body->>'used_up_at')::bigint < extract(epoch FROM now()) - 60",
    ),
    (TOKENS, "owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tokens p WHERE p.key = t.owner)"),
    (ACCESSORS, "NOT EXISTS (SELECT 1 FROM tokens p WHERE p.key = t.body->>'token')"),
    (CUBBYHOLES, "NOT EXISTS (SELECT 1 FROM tokens p WHERE p.key = t.key)"),
    (
        BINDINGS,
        "starts_with(key, 'token/') AND NOT EXISTS (SELECT 1 FROM tokens p WHERE 'token/' || p.key = t.key)",
    ),
)


def tidy_operations() -> tuple[Operation, ...]:
    """Return the operation that tidies."""
    return (
        Operation(
            name="token.tidy",
            method="write",
            pattern="tidy",
            handler=tidy,
            response=Nothing,
            capability="update",
            changes=True,
            statuses=(202,),
            summary="Remove tokens that are over.",
        ),
    )


async def tidy(context: Context, _body: None) -> Answer:
    """Remove tokens that are over now instead of within a minute."""
    removed, failures = await tidy_tokens(context.core)
    for failure in failures:
        context.core.metrics.integrity_failures.labels(failure.table).inc()
    wrong = (f"{len(failures)} rows are not authentic and were left alone",) if failures else ()
    return Answer(
        warnings=("Tidy operation is done.", *wrong),
        code=202,
        detail={"removed": removed, "left": [[failure.table, failure.key] for failure in failures[:20]]},
    )


async def tidy_tokens(core: Core) -> tuple[int, list[IntegrityFailure]]:
    """Remove what is over, batch by batch; return how many rows went, and what is wrong with others.

    Raises:
        Sealed, Unavailable: not now; the next call goes on.
    """
    removed = 0
    failures: list[IntegrityFailure] = []
    for table, over in _OVER:
        after: str | None = ""
        for _ in range(_ROUNDS):
            if after is None:
                break
            try:
                count, after, wrong = await _batch(core, table, over, after)
            except Stale as exc:
                await core.catch_up(exc)
                continue
            removed += count
            failures += wrong
    return removed, failures


async def alone(connection: asyncpg.Connection[Any]) -> bool:
    """Tell whether no other node tidies at this moment; none will until the transaction ends."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", LOCK))


async def _batch(
    core: Core, table: Table, over: str, after: str
) -> tuple[int, str | None, list[IntegrityFailure]]:
    """Remove one batch; return how many went, where the next begins (None at the end), what is wrong."""
    async with own_changes(core, "tidy", table.name) as fence, core.authority.issue(fence) as change:
        if not await alone(change.connection):
            return 0, None, []
        rows = await change.connection.fetch(
            f"SELECT key FROM {table.name} t WHERE {over} AND key > $1 ORDER BY key LIMIT $2",  # noqa: S608
            after,
            _BATCH,
        )
        keys = [row["key"] for row in rows]
        count, failures = await _remove(core, change, table, keys)
    return count, keys[-1] if len(keys) == _BATCH else None, failures


async def _remove(
    core: Core, change: Change, table: Table, keys: list[str]
) -> tuple[int, list[IntegrityFailure]]:
    if table is TOKENS:
        return await remove_tokens(change, core.keyring(), keys)
    rows, failures = await change.delete_many(table, keys)
    return len(rows), failures
