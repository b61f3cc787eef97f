"""A secrets engine moves to another path, with everything in it.

What a mount holds is stored under its UUID, so that moving it is one small change, however much that is:
from its commit on no node answers at the old path, and all answer at the new one. Policies are not
rewritten: they speak of paths. Auth methods do not move, because people and roles are called after the
path of theirs. Leases end, as in Vault: their ids name a path where nobody answers any more.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.leasing import leased_kinds
from secrethub.engines.mounts import AUTH
from secrethub.engines.system.mount_changes import KEPT, RESERVED, check_free
from secrethub.errors import InvalidRequest
from secrethub.ids import is_uuid, new_uuid
from secrethub.storage.authority import MOUNTS
from secrethub.storage.lease_ends import order_for_mount
from secrethub.wire.canonical_path import check_path

_STORE = "secret/"
_WARNING = "policies are not changed: those that name the old path say nothing of the new one"


class RemountRequest(msgspec.Struct, frozen=True):
    """What moves where.

    Attributes:
        source: path of a secrets engine.
        to: a free path.
    """

    source: str = msgspec.field(name="from")
    to: str


def remount_operations() -> tuple[Operation, ...]:
    """Return the operations that move mounts."""
    return (
        Operation(
            name="sys.remount",
            method="write",
            pattern="remount",
            handler=remount,
            capability="update",
            request=RemountRequest,
            changes=True,
            sudo=True,
            plain=frozenset({"from", "to"}),
            summary="Move a secrets engine to another path.",
        ),
        Operation(
            name="sys.remount.status",
            method="read",
            pattern="remount/status/{id}",
            handler=read_status,
            capability="read",
            summary="Read how a move went.",
        ),
    )


async def remount(context: Context, body: RemountRequest) -> Answer:
    """Move a secrets engine; when this returns no node answers at the old path any more.

    Raises:
        InvalidRequest: nothing that moves is there, or the new path cannot be had.
    """
    old, new = _path(body.source), _path(body.to)
    if old.startswith(AUTH) or new.startswith(AUTH):
        raise InvalidRequest("auth methods do not move: enable another one, and disable this one")
    if old == _STORE:
        raise InvalidRequest("secret/ does not move: secrets/ is a view of it")
    if old.startswith(RESERVED) or old in KEPT:
        raise InvalidRequest(f"cannot remount {old}")
    if new.startswith(RESERVED):
        raise InvalidRequest("the new path is reserved")
    await check_free(context, new, leased=await _leased(context, old))
    migration = new_uuid()
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(MOUNTS, old)
        if row is None or row.body.get("leaving"):
            raise InvalidRequest(f"no secrets engine is mounted at {old}")
        moved = {"id": migration, "from": old}
        await change.put(MOUNTS, new, {**row.body, "moved": moved}, expected_revision=0)
        await change.delete(MOUNTS, old)
        await order_for_mount(change.connection, row.body["uuid"])
    return Answer(data={"migration_id": migration}, warnings=(_WARNING,))


async def read_status(context: Context, _body: None) -> Answer:
    """Answer how a move went, as long as the mount has not moved on or been removed.

    Raises:
        InvalidRequest: there was none, or none that is remembered.
    """
    identifier = context.params["id"]
    if is_uuid(identifier):
        rows, _ = await context.core.authority.everything(MOUNTS)
        for row in rows:
            moved: dict[str, Any] = row.body.get("moved", {})
            if moved.get("id") == identifier:
                info = {"source_mount": moved["from"], "target_mount": row.key, "status": "success"}
                return Answer(data={"migration_id": identifier, "migration_info": info})
    raise InvalidRequest("no move with this id is known")


async def _leased(context: Context, path: str) -> bool:
    """Tell whether the engine at a path leases things out."""
    mounts = await context.core.mounts.load()
    return any(mount.path == path and mount.type in leased_kinds(context.core) for mount in mounts)


def _path(text: str) -> str:
    return check_path(text.strip("/")) + "/"
