"""Users of IAM that this cluster made and no lease speaks of any more: told of, and removed.

There should be none. There are after a database was put back to an older state, or when somebody forced
leases to be forgotten. Only users whose name and tags both say that this cluster made them are removed.
"""

from __future__ import annotations

import msgspec

from secrethub.engines.aws.account import Account, account_of
from secrethub.engines.aws.users import SETTLED_SECONDS, is_ours, own_tags, removed, users
from secrethub.engines.database.usernames import cluster_tag, marker_of
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.errors import Unavailable
from secrethub.storage.lease_lists import known_markers

_MOST = 1000
"""Removed at once."""
_TOLD = 200
"""Names that the ledger has of them."""


class StraysAnswer(msgspec.Struct, frozen=True):
    """Users without a lease; after a removal, those that were removed, and why others could not be."""

    strays: list[str]
    removed: list[str] = []
    failed: dict[str, str] = {}


def stray_operations() -> tuple[Operation, ...]:
    """Return the operations on strays."""
    return (
        Operation(
            name="aws.strays.read",
            method="read",
            pattern="strays",
            handler=read_strays,
            capability="read",
            response=StraysAnswer,
            summary="List users of IAM that this cluster made and no lease speaks of.",
        ),
        Operation(
            name="aws.strays.remove",
            method="write",
            pattern="strays",
            handler=remove_strays,
            capability="update",
            response=StraysAnswer,
            changes=True,
            sudo=True,
            summary="Remove users of IAM that this cluster made and no lease speaks of.",
        ),
    )


async def read_strays(context: Context, _body: None) -> Answer:
    """Answer the names of strays.

    Raises:
        InvalidRequest: AWS refuses.
        Unavailable: AWS does not answer.
    """
    account = await account_of(context.core, context.mount_id)
    try:
        found = await _strays(context, account)
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time: {exc}") from exc
    return Answer(data=msgspec.to_builtins(StraysAnswer(strays=sorted(found))))


async def remove_strays(context: Context, _body: None) -> Answer:
    """Remove strays, and answer which. Raises as :func:`read_strays`."""
    account = await account_of(context.core, context.mount_id)
    gone: list[str] = []
    failed: dict[str, str] = {}
    try:
        found = await _strays(context, account)
        for name, marker in sorted(found.items())[:_MOST]:
            if not await is_ours(account, name, own_tags(context.core.keys.cluster_id, marker)):
                failed[name] = "its tags do not say that this cluster made it"
            elif why := await removed(account, name, SETTLED_SECONDS):
                failed[name] = why
            else:
                gone.append(name)
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time: {exc}") from exc
    answered = StraysAnswer(strays=sorted(found), removed=gone, failed=failed)
    return Answer(
        data=msgspec.to_builtins(answered), detail={"removed": gone[:_TOLD], "failed": sorted(failed)[:_TOLD]}
    )


async def _strays(context: Context, account: Account) -> dict[str, str]:
    """Return the names of strays with the markers in them."""
    tag = cluster_tag(context.core.keys.cluster_id)
    # First who is there, then which leases: a user's lease is there before it is, and goes after it.
    named = {name: marker async for name in users(account) if (marker := marker_of(name, tag)) is not None}
    async with context.core.database.read() as connection:
        known = await known_markers(connection, list(named.values()))
    return {name: marker for name, marker in named.items() if marker not in known}
