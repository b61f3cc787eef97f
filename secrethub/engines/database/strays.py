"""Users at a target that this cluster made and that have no lease: they should not be, and are found here.

Only names with this cluster's tag and a marker are looked at (``without_lease.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from secrethub.engines.database.connection import find_connection
from secrethub.engines.database.target import Statements
from secrethub.engines.database.targets import targets_of
from secrethub.engines.database.usernames import cluster_tag, owner_name
from secrethub.engines.database.without_lease import without_lease
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.runtime import Core
from secrethub.errors import Unavailable

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
    try:
        found = await strays(context.core, context.mount_id, context.params["name"])
    except TimeoutError:
        raise Unavailable("the target did not answer in time") from None
    return Answer(data=msgspec.to_builtins(StraysAnswer(strays=found)))


async def remove_strays(context: Context, _body: None) -> Answer:
    """Remove users of this cluster that have no lease."""
    place = (context.core, context.mount_id, context.params["name"])
    try:
        found = await strays(*place)
        failed = await drop_strays(*place, found)
    except TimeoutError:
        raise Unavailable("the target did not answer in time; what was begun may be done") from None
    removed = [name for name in found if name not in failed]
    answered = StraysAnswer(strays=found, removed=removed, failed=failed)
    return Answer(data=msgspec.to_builtins(answered), detail={"removed": removed[:_BATCH]})


async def strays(core: Core, mount: str, name: str) -> list[str]:
    """Return users at a connection's target that this cluster made and that have no lease.

    Raises:
        NotFound: there is no such connection.
        Unavailable, TimeoutError: the target does not answer.
    """
    connection = await find_connection(core, mount, name)
    part = f"-{cluster_tag(core.keys.cluster_id)}-"
    async with targets_of(core).use(connection) as target:
        found = await without_lease(core, lambda: target.users(part))
    # Whatever it is called, nobody cuts off the branch that he sits on.
    found.pop(connection.options.get("username", ""), None)
    return list(found)


async def drop_strays(core: Core, mount: str, name: str, users: Sequence[str]) -> dict[str, str]:
    """Remove users, and return why some could not be. Raises as :func:`strays`."""
    connection = await find_connection(core, mount, name)
    failed: dict[str, str] = {}
    statements = Statements(owner=owner_name(core.keys.cluster_id, mount, ""))
    async with targets_of(core).use(connection) as target:
        for start in range(0, len(users), _BATCH):
            failed.update(await target.drop(users[start : start + _BATCH], statements))
    return failed
