"""The end of tokens: revoked with everything made from them, or removed once they have expired.

A token is only good while all those it was made from are (``known.py``). So only the
revoked token itself must be gone before the answer; the rows of its descendants are removed without
holding anybody up.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import msgspec

from secrethub.auth.digests import accessor_digest
from secrethub.auth.tokens import open_accessor
from secrethub.crypto.keyring import Keyring
from secrethub.engines.bindings import Subject, end_bindings
from secrethub.engines.engine import EMPTY, Answer, Context
from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.errors import IntegrityFailure, Sealed, Stale, Unavailable
from secrethub.storage.authority import ACCESSORS, CUBBYHOLES, TOKENS, Change
from secrethub.storage.lease_ends import order_for_owners

_BATCH = 1000
_ORPHANS = 100

_log = logging.getLogger(__name__)


async def end_token(context: Context, digest: str) -> Answer:
    """Revoke a token: when this returns no node takes it, or what was made from it, any more.

    Raises:
        Stale: the decision is older than the database; nothing happened.
        IntegrityFailure: its row is not authentic; nobody takes it anyway.
    """
    core = context.core
    async with core.authority.change(context.fence) as change:
        count, failures = await remove_tokens(change, core.keyring(), [digest])
        _check_ended(count, failures)
    if not count:
        return EMPTY
    _report(core, failures)
    count += await _remove_descendants(context, digest)
    return Answer(detail={"revoked": count, "left": _named(failures)})


async def remove_tokens(
    change: Change, keyring: Keyring, digests: Sequence[str], *, heirs: bool = True
) -> tuple[int, list[IntegrityFailure]]:
    """Delete tokens, their accessors, what they keep and what is bound to them, and order their leases' end.

    Args:
        change: of authority.
        keyring: opens their accessors.
        digests: of the tokens.
        heirs: the leases of what was made from them end, too.

    Returns:
        How many went, and what is wrong with those that were left alone.
    """
    rows, failures = await change.delete_many(TOKENS, digests)
    accessors = [accessor_digest(keyring, open_accessor(keyring, row.key, row.body)) for row in rows]
    _, more = await change.delete_many(ACCESSORS, accessors)
    _, kept = await change.delete_many(CUBBYHOLES, [row.key for row in rows])
    unbound = await end_bindings(change, [Subject("token", row.key) for row in rows])
    if rows:
        await order_for_owners(change.connection, [row.key for row in rows], heirs=heirs)
    return len(rows), failures + more + kept + unbound


async def end_orphaning(context: Context, digest: str) -> Answer:
    """Revoke a token alone: its children have no parent any more.

    Some children in one transaction, for each of them stops everybody else. A crash between two leaves
    the token, so it can be done again.

    Raises:
        Stale: the decision is older than the database; nothing happened.
        IntegrityFailure: a row is not authentic.
    """
    core, fence = context.core, context.fence
    orphans = 0
    while True:
        async with core.authority.change(fence) as change:
            keys = await change.connection.fetch(
                "SELECT key FROM tokens WHERE owner = $1 ORDER BY key LIMIT $2", digest, _ORPHANS
            )
            for record in keys:
                row = await change.get(TOKENS, record["key"])
                if row is not None:
                    await change.put(TOKENS, row.key, row.body, owner=None, expires_at=row.expires_at)
            done = len(keys) < _ORPHANS
            if done:
                count, failures = await remove_tokens(change, core.keyring(), [digest], heirs=False)
                _check_ended(count, failures)
        orphans += len(keys)
        if done:
            _report(core, failures)
            detail = {"revoked": count, "orphans": orphans, "left": _named(failures)}
            return Answer(detail=detail)
        await core.ledger.look()
        fence = msgspec.structs.replace(
            fence, generation=core.caches.generation, seal_epoch=core.caches.seal_epoch
        )


async def end_below(context: Context, path: str) -> Answer:
    """Revoke the service tokens that were made at a path or below, and end by themselves some time.

    Their rows are removed without holding anybody up; the change at the end lets every node know of it before
    this returns. It can be done again.

    Raises:
        Stale: the decision is older than the database; nothing happened.
        Sealed, Unavailable: not all of them are gone.
    """
    core, fence = context.core, context.fence
    count, after, left = 0, "", list[IntegrityFailure]()
    async with core.authority.issue(fence):
        pass  # By a decision that was overtaken nothing is ended.
    while keys := await _made_below(core, path, after):
        try:
            async with (
                own_changes(core, "token.revoke", context.path) as own,
                core.authority.issue(own) as change,
            ):
                removed, failures = await remove_tokens(change, core.keyring(), keys)
        except Stale as exc:
            await core.catch_up(exc)
            continue
        after, count = keys[-1], count + removed
        left += failures
        _report(core, failures)
    # In a turn, for whoever begins anew because authority has changed meanwhile finds nothing to count.
    async with contextlib.nullcontext() if fence.in_turn else core.authority.turns.turn():
        await core.ledger.look()
        present = msgspec.structs.replace(
            fence, generation=core.caches.generation, seal_epoch=core.caches.seal_epoch, in_turn=True
        )
        async with core.authority.change(present):
            pass
    return Answer(data={"leases": count}, detail={"revoked": count, "left": _named(left)})


async def _made_below(core: Core, path: str, after: str) -> list[str]:
    async with core.database.read() as connection:
        rows = await connection.fetch(
            """SELECT key FROM tokens
               WHERE (body->>'path' = $1 OR starts_with(body->>'path', $1 || '/')) AND expires_at IS NOT NULL
                   AND key > $2 ORDER BY key LIMIT $3""",
            path,
            after,
            _BATCH,
        )
    return [row["key"] for row in rows]


async def _remove_descendants(context: Context, digest: str) -> int:
    """Delete what was made from a token that is gone, as far as it can be done now; the rest expires."""
    core = context.core
    count = 0
    try:
        async with core.database.read() as connection:
            rows = await connection.fetch(
                """WITH RECURSIVE tree AS (
                       SELECT key FROM tokens WHERE owner = $1
                       UNION SELECT t.key FROM tokens t JOIN tree ON t.owner = tree.key)
                   SELECT key FROM tree ORDER BY key""",
                digest,
            )
        for start in range(0, len(rows), _BATCH):
            await core.ledger.look()
            async with (
                own_changes(core, "token.revoke", context.path) as fence,
                core.authority.issue(fence) as change,
            ):
                removed, failures = await remove_tokens(
                    change, core.keyring(), [row["key"] for row in rows[start : start + _BATCH]]
                )
            count += removed
            _report(core, failures)
    except (Stale, Sealed, Unavailable) as exc:
        _log.warning("tokens made from a revoked one are left to expire: %s", exc.code)
    return count


def _check_ended(count: int, failures: Sequence[IntegrityFailure]) -> None:
    """Check that the token itself went: what only belonged to it is worth nothing without it.

    Raises:
        IntegrityFailure: its row is not authentic, so it was left alone; nobody takes it anyway.
    """
    if not count:
        for failure in failures:
            raise failure


def _report(core: Core, failures: Sequence[IntegrityFailure]) -> None:
    for failure in failures:
        core.metrics.integrity_failures.labels(failure.table).inc()
        _log.error("what belonged to a revoked token could not be removed: %s", failure)


def _named(failures: Sequence[IntegrityFailure]) -> list[str]:
    return [f"{failure.table}/{failure.key}" for failure in failures]
