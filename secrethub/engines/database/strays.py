"""Users at a target that this cluster made and that have no lease: they should not be, and are found here.

Only names with this cluster's tag and a marker are looked at. The target is asked first and the leases then:
an intent is there before its user is, and a lease until its user is gone, so whoever belongs to one is none.
"""

from __future__ import annotations

import msgspec

from secrethub.engines.database.connection import find_connection
from secrethub.engines.database.target import Statements, Target
from secrethub.engines.database.targets import targets_of
from secrethub.engines.database.usernames import cluster_tag, marker_of
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.errors import Unavailable
from secrethub.storage import leases

_PATTERN = "strays/{name}"
_BATCH = 200


class StraysAnswer(msgspec.Struct, frozen=True):
    """Users without a lease; after a removal, those that were removed, and why others could not be."""

    strays: list[str]
    removed: list[str] = []
    failed: dict[str, str] = {}


def stray_operations() -> tuple[Operation, ...]:
    """Return the operations on users without a lease."""
    return (
        Operation(
            name="database.strays.read",
            method="read",
            pattern=_PATTERN,
            handler=find_strays,
            capability="read",
            response=StraysAnswer,
            summary="Find users of this cluster at a database that have no lease.",
        ),
        Operation(
            name="database.strays.remove",
            method="write",
            pattern=_PATTERN,
            handler=remove_strays,
            capability="update",
            response=StraysAnswer,
            changes=True,
            sudo=True,
            summary="Remove users of this cluster at a database that have no lease.",
        ),
    )


async def find_strays(context: Context, _body: None) -> Answer:
    """Answer users of this cluster that have no lease."""
    connection = await find_connection(context.core, context.mount_id, context.params["name"])
    try:
        async with targets_of(context.core).use(connection) as target:
            found = await _strays(context, target)
    except TimeoutError:
        raise Unavailable("the target did not answer in time") from None
    return Answer(data=msgspec.to_builtins(StraysAnswer(strays=found)))


async def remove_strays(context: Context, _body: None) -> Answer:
    """Remove users of this cluster that have no lease."""
    connection = await find_connection(context.core, context.mount_id, context.params["name"])
    failed: dict[str, str] = {}
    try:
        async with targets_of(context.core).use(connection) as target:
            found = await _strays(context, target)
            for start in range(0, len(found), _BATCH):
                failed.update(await target.drop(found[start : start + _BATCH], Statements()))
    except TimeoutError:
        raise Unavailable("the target did not answer in time; what was begun may be done") from None
    removed = [name for name in found if name not in failed]
    answered = StraysAnswer(strays=found, removed=removed, failed=failed)
    return Answer(data=msgspec.to_builtins(answered), detail={"removed": removed[:_BATCH]})


async def _strays(context: Context, target: Target) -> list[str]:
    tag = cluster_tag(context.core.keys.cluster_id)
    markers = {
        name: marker
        for name in await target.users(f"-{tag}-")
        if (marker := marker_of(name, tag)) is not None
    }
    known = await leases.known_markers(context.core.database, list(markers.values()))
    return sorted(name for name, marker in markers.items() if marker not in known)
