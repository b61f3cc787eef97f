"""Removing rows of authority that have expired, batch by batch. Expired rows are refused anyway."""

from __future__ import annotations

from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.engines.token.tidying import alone
from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.authority import Table

_BATCH = 1000
_ROUNDS = 200


async def remove_expired(core: Core, table: Table) -> tuple[int, list[IntegrityFailure]]:
    """Remove what has expired; return how many rows went, and what is wrong with others.

    Raises:
        Sealed, Unavailable: not now; the next call goes on.
    """
    removed = 0
    failures: list[IntegrityFailure] = []
    after: str | None = ""
    for _ in range(_ROUNDS):
        if after is None:
            break
        try:
            count, after, wrong = await _batch(core, table, after)
        except Stale:
            await core.ledger.look()
            continue
        removed += count
        failures += wrong
    return removed, failures


async def _batch(core: Core, table: Table, after: str) -> tuple[int, str | None, list[IntegrityFailure]]:
    """Remove one batch; return how many went, where the next begins (None at the end), what is wrong."""
    async with own_changes(core, "tidy", table.name) as fence, core.authority.issue(fence) as change:
        if not await alone(change.connection):
            return 0, None, []
        found = await change.connection.fetch(
            f"""SELECT key FROM {table.name} WHERE expires_at < now() - interval '1 minute' AND key > $1
                ORDER BY key LIMIT $2""",  # noqa: S608 - a constant of ours
            after,
            _BATCH,
        )
        keys = [row["key"] for row in found]
        rows, failures = await change.delete_many(table, keys)
    return len(rows), keys[-1] if len(keys) == _BATCH else None, failures
