"""Removing what is over: tokens and what they left, SecretIDs, failed logins, nonces, old announcements.

A mount whose removal was interrupted is removed, too.

Expiry itself never waits for this: an expired row is refused when it is used. One node tidies at a time.
"""

from __future__ import annotations

from secrethub.engines.expired import remove_expired
from secrethub.engines.own_changes import record
from secrethub.engines.runtime import Core
from secrethub.engines.token.tidying import alone, tidy_tokens
from secrethub.engines.unmounting import empty
from secrethub.errors import IntegrityFailure
from secrethub.operations.note import note
from secrethub.storage import kv_ends, quota_levels
from secrethub.storage.authority import LOGIN_FAILURES, SECRET_IDS

_ROUNDS = 200
_OLD = 50_000
_REPORTED = "tidy"


async def tidy(core: Core) -> int:
    """Remove what has expired, batch by batch, and return how many rows of authority went.

    Raises:
        SecretHubError: the database or the keys are not there; the next call goes on.
    """
    await record(core, "tidy", "state", [])
    removed = 0
    for part in (_secret_ids, _login_failures, tidy_tokens):
        count, failures = await part(core)
        removed += count
        # Only now: whoever writes into the ledger must hold no lock that others wait for.
        await _report(core, failures)
    for _ in range(_ROUNDS):
        if not await _forget(core):
            break
    for mount in await core.mounts.leaving():
        await empty(core, mount.path)
    return removed


async def _secret_ids(core: Core) -> tuple[int, list[IntegrityFailure]]:
    return await remove_expired(core, SECRET_IDS)


async def _login_failures(core: Core) -> tuple[int, list[IntegrityFailure]]:
    return await remove_expired(core, LOGIN_FAILURES)


async def _forget(core: Core) -> bool:
    """Remove nonces and announcements that are over; tell whether there are more announcements."""
    async with core.database.write() as connection:
        if not await alone(connection):
            return False
        await connection.execute("DELETE FROM enrollments WHERE expires_at < now()")
        await quota_levels.forget(connection)
        await kv_ends.forget(connection, _OLD)
        # Whoever was away for longer drops its caches (see storage/freshness.py). Up to the first one that
        # stays, in their order: those of the last hour may be millions.
        gone = await connection.fetchval(
            """WITH kept AS (
                    SELECT sequence FROM changes WHERE at >= now() - interval '1 hour'
                    ORDER BY sequence LIMIT 1),
                gone AS (
                    DELETE FROM changes WHERE sequence IN (
                        SELECT sequence FROM changes
                        WHERE sequence < COALESCE((SELECT sequence FROM kept), 9223372036854775807)
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
