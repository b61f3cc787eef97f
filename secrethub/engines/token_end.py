"""The end of tokens: revoked with everything made from them, or removed once they have expired.

A token is only good while all those it was made from are (``operations/identify.py``). So only the
revoked token itself must be gone before the answer; the rows of its descendants are removed without
holding anybody up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from secrethub.auth.digests import accessor_digest
from secrethub.auth.tokens import open_accessor
from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import EMPTY, Answer, Context, Fence
from secrethub.errors import IntegrityFailure, Sealed, Stale, Unavailable
from secrethub.storage.authority import ACCESSORS, TOKENS, Change

_BATCH = 1000

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
        for failure in failures:
            raise failure
    if not count:
        return EMPTY
    count += await _remove_descendants(context, digest)
    return Answer(detail={"revoked": count, "written": change.written})


async def remove_tokens(
    change: Change, keyring: Keyring, digests: Sequence[str]
) -> tuple[int, list[IntegrityFailure]]:
    """Delete tokens and their accessors; return how many, and what is wrong with those left alone."""
    rows, failures = await change.delete_many(TOKENS, digests)
    accessors = [accessor_digest(keyring, open_accessor(keyring, row.key, row.body)) for row in rows]
    _, more = await change.delete_many(ACCESSORS, accessors)
    return len(rows), failures + more


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
            fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch)
            async with core.authority.issue(fence) as change:
                removed, failures = await remove_tokens(
                    change, core.keyring(), [row["key"] for row in rows[start : start + _BATCH]]
                )
            count += removed
            for failure in failures:
                core.metrics.integrity_failures.labels(failure.table).inc()
                _log.error("a token made from a revoked one could not be removed: %s", failure)
    except (Stale, Sealed, Unavailable) as exc:
        _log.warning("tokens made from a revoked one are left to expire: %s", exc.code)
    return count
