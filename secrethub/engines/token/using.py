"""Counting the requests of tokens that are good for a number of them.

A use is counted in one transaction under the lock of the token's row, after the intent is durable and
before anything is done or disclosed. So it is spent whether an answer comes or not, and however many
processes are asked at the same time, no more requests pass than there were uses.
"""

from __future__ import annotations

from secrethub.engines.engine import Fence
from secrethub.engines.identity import Identity
from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.engines.token.ending import remove_tokens
from secrethub.errors import PermissionDenied, Sealed, Stale, Unavailable
from secrethub.storage.authority import TOKENS


async def spend(core: Core, fence: Fence, identity: Identity) -> int:
    """Count one use and return how many are left.

    Raises:
        PermissionDenied: there was none left.
        Stale: the decision is older than the database; nothing was counted.
    """
    async with core.authority.issue(fence) as change:
        row = await change.get(TOKENS, identity.key)
        left = None if row is None else row.body["uses_left"]
        if row is None or left == 0:
            raise PermissionDenied(f"token {identity.key[:16]} is used up")
        if left is None:
            raise Stale("the token is another one now")
        body = {**row.body, "uses_left": left - 1}
        if left == 1:
            body["used_up_at"] = int(core.clock.now().timestamp())
        await change.put(TOKENS, row.key, body, owner=row.owner, expires_at=row.expires_at)
    return int(left) - 1


async def forget_used_up(core: Core, key: str) -> None:
    """Remove a token whose last use is over, as far as it can be done now; the next tidying does the rest."""
    try:
        await core.ledger.look()
        async with own_changes(core, "token.used-up") as fence, core.authority.issue(fence) as change:
            row = await change.get(TOKENS, key)
            if row is not None and row.body["uses_left"] == 0:
                await remove_tokens(change, core.keyring(), [key])
    except (Stale, Sealed, Unavailable):
        return
