"""Removing what is over: tokens and what they left, SecretIDs, enrolment nonces, old announcements.

A mount whose removal was interrupted is removed, too.

Expiry itself never waits for this: an expired row is refused when it is used. One node tidies at a time.
"""

from __future__ import annotations

from secrethub.engines.engine import Fence
from secrethub.engines.runtime import Core
from secrethub.engines.token.tidying import alone, tidy_tokens
from secrethub.engines.unmounting import empty
from secrethub.errors import IntegrityFailure, Stale
from secrethub.operations.note import note
from secrethub.storage.authority import SECRET_IDS

_BATCH = 1000
_ROUNDS = 200
_OLD = 50_000
_REPORTED = "tidy"


async def tidy(core: Core) -> int:
    """Remove what has expired, batch by batch, and return how many rows of authority went.

    Raises:
        SecretHubError: the database or the keys are not there; the next call goes on.
    """
    removed = 0
    after: str | None = ""
    for _ in range(_ROUNDS):
        if after is None:
            break
        try:
            count, after, failures = await _secret_ids(core, after)
        except Stale:
            await core.ledger.look()
            continue
        removed += count
        # Only now: whoever writes into the ledger must hold no lock that others wait for.
        await _report(core, failures)
    count, failures = await tidy_tokens(core)
    removed += count
    await _report(core, failures)
    for _ in range(_ROUNDS):
        if not await _forget(core):
            break
    for mount in await core.mounts.leaving():
        await empty(core, mount.path)
    return removed


async def _secret_ids(core: Core, after: str) -> tuple[int, str | None, list[IntegrityFailure]]:
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


async def _forget(core: Core) -> bool:
    """Remove nonces and announcements that are over; tell whether there are more announcements."""
    async with core.database.write() as connection:
        if not await alone(connection):
            return False
        await connection.execute("DELETE FROM enrollments WHERE expires_at < now()")
        # Whoever was away for longer than this drops its caches (see storage/freshness.py).
        gone = await connection.fetchval(
            """WITH gone AS (
                    DELETE FROM changes WHERE sequence IN (
                        SELECT sequence FROM changes WHERE at < now() - interval '1 hour'
                        ORDER BY sequence LIMIT $1)
                    RETURNING txid),
                told AS (
                    UPDATE cluster
                    SET changes_pruned_below = GREATEST(changes_pruned_below, g.highest + 1)
                    FROM (SELECT max(txid) AS highest FROM gone) g WHERE g.highest IS NOT NULL)
                SELECT count(*) FROM gone""",
            _OLD,
        )
    return bool(gone == _OLD)


async def _report(core: Core, failures: list[IntegrityFailure]) -> None:
    """Write down what is wrong with rows that should go, each once a process."""
    known = core.engine_state.setdefault(_REPORTED, set())
    assert isinstance(known, set)
    for failure in failures:
        place = (failure.table, failure.key)
        if place in known:
            continue
        known.add(place)
        core.metrics.integrity_failures.labels(failure.table).inc()
        await note(
            core,
            operation="tidy",
            path=f"{failure.table}/{failure.key[:64]}",
            actor="system",
            outcome="refused",
            reason=str(failure),
        )
