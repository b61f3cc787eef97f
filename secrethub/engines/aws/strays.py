"""Users of IAM that this cluster made and no lease speaks of any more: told of, and removed.

There should be none. There are after a database was put back to an older state, or when somebody forced
leases to be forgotten. Only users whose name and tags both say that this cluster made them are removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from secrethub.engines.aws.account import account_of
from secrethub.engines.aws.users import SETTLED_SECONDS, is_ours, own_tags, removed, users
from secrethub.engines.database.usernames import cluster_tag, marker_of
from secrethub.engines.database.without_lease import without_lease
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.runtime import Core
from secrethub.errors import Unavailable

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
    try:
        found = await strays(context.core, context.mount_id)
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time: {exc}") from exc
    return Answer(data=msgspec.to_builtins(StraysAnswer(strays=found)))


async def remove_strays(context: Context, _body: None) -> Answer:
    """Remove strays, and answer which. Raises as :func:`read_strays`."""
    try:
        found = await strays(context.core, context.mount_id)
        tried = found[:_MOST]
        failed = await drop_strays(context.core, context.mount_id, tried)
    except TimeoutError as exc:
        raise Unavailable(f"AWS did not answer in time: {exc}") from exc
    gone = [name for name in tried if name not in failed]
    answered = StraysAnswer(strays=found, removed=gone, failed=failed)
    return Answer(
        data=msgspec.to_builtins(answered), detail={"removed": gone[:_TOLD], "failed": sorted(failed)[:_TOLD]}
    )


async def strays(core: Core, mount: str) -> list[str]:
    """Return the names of strays. Raises as :meth:`Account.call`."""
    account = await account_of(core, mount)

    async def there() -> list[str]:
        return [name async for name in users(account)]

    return list(await without_lease(core, there))


async def drop_strays(core: Core, mount: str, names: Sequence[str]) -> dict[str, str]:
    """Remove those whose tags say so, too; return why others could not be. Raises as :meth:`Account.call`."""
    account = await account_of(core, mount)
    cluster, failed = core.keys.cluster_id, {}
    for name in names:
        marker = marker_of(name, cluster_tag(cluster))
        if marker is None or not await is_ours(account, name, own_tags(cluster, marker)):
            failed[name] = "its tags do not say that this cluster made it"
        elif why := await removed(account, name, SETTLED_SECONDS):
            failed[name] = why
    return failed
