"""Names that are locked after failed logins: listed by mount, and let in again."""

from __future__ import annotations

from typing import Any

from secrethub.engines.answers import Nothing
from secrethub.engines.auth_methods import row_name
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.failures import failures_of, lockout_of
from secrethub.engines.mounts import AUTH, Mount
from secrethub.engines.system.answers import LockedUsersAnswer
from secrethub.errors import InvalidRequest
from secrethub.storage.authority import LOGIN_FAILURES


def locked_user_operations() -> tuple[Operation, ...]:
    """Return the operations on locked names."""
    return (
        Operation(
            name="sys.locked-users.list",
            method="read",
            pattern="locked-users",
            handler=list_locked,
            response=LockedUsersAnswer,
            capability="read",
            query=("mount_accessor",),
            summary="List the names that are locked after failed logins.",
        ),
        Operation(
            name="sys.locked-users.unlock",
            method="write",
            pattern="locked-users/{accessor}/unlock/{user}",
            handler=unlock,
            response=Nothing,
            capability="update",
            changes=True,
            summary="Let a locked name in again.",
        ),
    )


async def list_locked(context: Context, _body: None) -> Answer:
    """Answer the locked names by the accessors of their mounts; ``mount_accessor`` asks for one of them."""
    wanted = context.query.get("mount_accessor", "")
    rows, broken = await context.core.authority.everything(LOGIN_FAILURES)
    for trouble in broken.values():
        raise trouble
    methods = await _methods(context)
    rules = {mount.uuid: lockout_of(mount.settings) for mount in methods}
    locked: dict[str, list[str]] = {}
    for known in map(failures_of, rows):
        if known.mount in rules and known.locked(context.now, rules[known.mount]):
            locked.setdefault(known.mount, []).append(known.name)
    found: list[dict[str, Any]] = [
        {"mount_accessor": mount.accessor, "counts": len(names), "alias_identifiers": sorted(names)}
        for mount in methods
        if wanted in {"", mount.accessor} and (names := locked.get(mount.uuid))
    ]
    total = sum(one["counts"] for one in found)
    namespace = {"namespace_id": "root", "namespace_path": "", "counts": total, "mount_accessors": found}
    return Answer(data={"by_namespace": [namespace] if found else [], "total": total})


async def unlock(context: Context, _body: None) -> Answer:
    """Forget the failures under a name; that there are none is no error, as in Vault."""
    accessor, name = context.params["accessor"], context.params["user"].lower()
    mount = next((one for one in await _methods(context) if one.accessor == accessor), None)
    if mount is None:
        raise InvalidRequest("no auth method has this accessor")
    async with context.core.authority.issue(context.fence) as change:
        if not await change.delete(LOGIN_FAILURES, row_name(mount.uuid, name)):
            return EMPTY
    return Answer(detail={"name": name, "mount": mount.path})


async def _methods(context: Context) -> list[Mount]:
    return [mount for mount in await context.core.mounts.load() if mount.path.startswith(AUTH)]
