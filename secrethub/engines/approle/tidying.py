"""Removing SecretIDs that have expired, batch by batch. Nobody can log in with them anyway."""

from __future__ import annotations

from secrethub.engines.engine import Answer, Context, Fence
from secrethub.engines.runtime import Core
from secrethub.engines.token.tidying import alone
from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.authority import SECRET_IDS

_BATCH = 1000
_ROUNDS = 200


async def tidy(context: Context, _body: None) -> Answer:
    """Remove SecretIDs that are over now instead of within a minute."""
    removed, failures = await tidy_secret_ids(context.core)
    for failure in failures:
        context.core.metrics.integrity_failures.labels(failure.table).inc()
    wrong = (f"{len(failures)} rows are not authentic and were left alone",) if failures else ()
    return Answer(
        warnings=("Tidy operation is done.", *wrong),
        code=202,
        detail={"removed": removed, "left": [[failure.table, failure.key] for failure in failures[:20]]},
    )


async def tidy_secret_ids(core: Core) -> tuple[int, list[IntegrityFailure]]:
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
            count, after, wrong = await _batch(core, after)
        except Stale:
            await core.ledger.look()
            continue
        removed += count
        failures += wrong
    return removed, failures


async def _batch(core: Core, after: str) -> tuple[int, str | None, list[IntegrityFailure]]:
    """Remove one batch; return how many went, where the next begins (None at the end), what is wrong."""
    fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch)
    async with core.authority.issue(fence) as change:
        if not await alone(change.connection):
            return 0, None, []
        found = await change.connection.fetch(
            """SELECT key FROM secret_ids WHERE expires_at < now() - interval '1 minute' AND key > $1
               ORDER BY key LIMIT $2""",
            after,
            _BATCH,
        )
        keys = [row["key"] for row in found]
        rows, failures = await change.delete_many(SECRET_IDS, keys)
    return len(rows), keys[-1] if len(keys) == _BATCH else None, failures
