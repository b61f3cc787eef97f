"""The end of a mount, in three steps, so that a large store holds nobody up.

1. Its row says that it leaves: from that commit on nobody is led to it, and nothing can take its place. Its
   leases are ordered to end.
2. Once they have ended, which takes what the mount knows of their targets, its secrets are removed, some in
   one transaction; of an auth method the tokens and what it keeps.
3. Its row is removed.

Steps 2 and 3 are done before the answer; where that fails, the same request or the next tidying goes on.
"""

from __future__ import annotations

from secrethub.engines.auth_methods import is_auth, remove_rows
from secrethub.engines.kept import forget_kept
from secrethub.engines.lease_ending import end_leases_of
from secrethub.engines.own_changes import own_changes
from secrethub.engines.runtime import Core
from secrethub.errors import Stale
from secrethub.storage import kv, kv_ends
from secrethub.storage.authority import MOUNTS, Change

_BATCH = 100
"""Secrets in one transaction; their versions may come to a gigabyte, and must go before it times out."""


async def empty(core: Core, path: str) -> bool:
    """Remove what a leaving mount holds, and then the mount; one that is not leaving is left alone.

    Returns:
        Whether it is done. If not, leases are left that could not be ended yet.

    Raises:
        Sealed, Unavailable: it is not done yet.
        IntegrityFailure: the mount's row is not authentic.
    """
    row = await core.authority.fetch(MOUNTS, path)
    if row is not None and row.body.get("leaving"):
        if is_auth(path):
            await remove_rows(core, path, row.body["type"], row.body["uuid"])
        elif not await end_leases_of(core, row.body["uuid"]):
            return False
    while True:
        done, gone = True, dict[str, int]()
        try:
            async with own_changes(core, "sys.mounts.disable", path) as fence:
                # An issue, no change: what goes here has no right to anything any more.
                async with core.authority.issue(fence) as change:
                    # Locks the row, so that several nodes take turns.
                    row = await change.get(MOUNTS, path)
                    if row is None or not row.body.get("leaving"):
                        return True
                    if not is_auth(path):
                        done, gone = await _emptied(core, change, row.body["uuid"])
                    if done:
                        await change.delete(MOUNTS, path)
                fence.written.extend(kv_ends.written(*end) for end in gone.items())
        except Stale:
            await core.ledger.look()
            continue
        if done:
            return True


async def _emptied(core: Core, change: Change, mount: str) -> tuple[bool, dict[str, int]]:
    """Remove some of what a mount holds; tell whether nothing is left, and which secrets ended."""
    gone = await kv.remove_some(change.connection, core.keyring(), mount, _BATCH)
    if gone:
        return False, gone
    return await forget_kept(core.authority, change, mount), {}
