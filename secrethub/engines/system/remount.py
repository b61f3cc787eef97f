"""What is mounted moves to another path, with everything in it.

What a mount holds is stored under its UUID, so that moving it is one small change, however much that is:
from its commit on no node answers at the old path, and all answer at the new one. Quotas of the mount
move with it. Policies are not rewritten: they speak of paths. As in Vault, leases end, for their ids name a
path where nobody answers any more, and so do the tokens of an auth method.

From the same commit on nobody takes these tokens. Until their rows are removed, nothing can take the old
path: what stands there is a mount that leaves (``engines/unmounting.py``) and holds nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.clock import micros
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.leasing import leased_kinds
from secrethub.engines.mounts import AUTH, TOKEN_MOUNT
from secrethub.engines.quota_mounts import move_quotas, quotas_of
from secrethub.engines.system.answers import MoveAnswer, MoveStatusAnswer
from secrethub.engines.system.mount_changes import KEPT, RESERVED, check_free
from secrethub.engines.unmounting import empty
from secrethub.errors import InvalidRequest, Sealed, Unavailable
from secrethub.ids import is_uuid, new_uuid
from secrethub.storage.authority import MOUNTS, Change
from secrethub.storage.lease_ends import order_for_mount
from secrethub.wire.canonical_path import check_path

_STORE = "secret/"
_WARNING = "policies are not changed: those that name the old path say nothing of the new one"
_ENDED = "the tokens that were given out at the old path have ended"

_PLACES = 20
"""Earlier paths that a mount remembers, for what the ledger says of it."""

_log = logging.getLogger(__name__)


class RemountRequest(msgspec.Struct, frozen=True):
    """What moves where.

    Attributes:
        source: path of a secrets engine, or of an auth method with ``auth/`` before it.
        to: a free path; likewise.
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
            response=MoveAnswer,
            capability="update",
            request=RemountRequest,
            changes=True,
            sudo=True,
            plain=frozenset({"from", "to"}),
            summary="Move a secrets engine or an auth method to another path.",
        ),
        Operation(
            name="sys.remount.status",
            method="read",
            pattern="remount/status/{id}",
            handler=read_status,
            response=MoveStatusAnswer,
            capability="read",
            summary="Read how a move went.",
        ),
    )


async def remount(context: Context, body: RemountRequest) -> Answer:
    """Move what is mounted; when this returns no node answers at the old path any more.

    Raises:
        InvalidRequest: nothing that moves is there, or the new path cannot be had.
    """
    old, new = _path(body.source), _path(body.to)
    if old.startswith(AUTH):
        return await _move_auth(context, old, new)
    if old == _STORE:
        raise InvalidRequest("secret/ does not move: secrets/ is a view of it")
    if old.startswith(RESERVED) or old in KEPT:
        raise InvalidRequest(f"cannot remount {old}: others live by it where it is")
    if new.startswith(RESERVED):
        raise InvalidRequest("the new path is reserved")
    await check_free(context, new, leased=await _leased(context, old))
    migration, quotas = new_uuid(), await quotas_of(context.core.authority, old)
    async with context.core.authority.change(context.fence) as change:
        body_of = await _moving(change, old, "no secrets engine is mounted at")
        await change.put(
            MOUNTS, new, {**body_of, **_moved(context, migration, old, body_of)}, expected_revision=0
        )
        await change.delete(MOUNTS, old)
        await move_quotas(change, quotas, new)
        await order_for_mount(change.connection, body_of["uuid"])
    return Answer(data={"migration_id": migration}, warnings=(_WARNING,))


async def _move_auth(context: Context, old: str, new: str) -> Answer:
    """Move an auth method; when this returns no node takes a token that it gave out before."""
    core = context.core
    if old == TOKEN_MOUNT:
        raise InvalidRequest(f"cannot remount {old}: it is always there")
    if not new.startswith(AUTH):
        raise InvalidRequest("an auth method moves to a path below auth/")
    await check_free(context, new)
    migration, quotas = new_uuid(), await quotas_of(context.core.authority, old)
    async with core.authority.change(context.fence) as change:
        body_of = await _moving(change, old, "no auth method is enabled at")
        await change.put(
            MOUNTS, new, {**body_of, **_moved(context, migration, old, body_of)}, expected_revision=0
        )
        left = {"type": body_of["type"], "accessor": body_of["accessor"], "uuid": new_uuid(), "leaving": True}
        await change.put(MOUNTS, old, left)
        await move_quotas(change, quotas, new)
    try:
        await empty(core, old)
    except (Sealed, Unavailable) as exc:
        _log.warning("tokens of a moved auth method, which nobody takes, were left: %s", exc.code)
    return Answer(data={"migration_id": migration}, warnings=(_WARNING, _ENDED))


async def _moving(change: Change, path: str, nothing: str) -> dict[str, Any]:
    """Return the body of the row that moves.

    Raises:
        InvalidRequest: nothing is there.
    """
    row = await change.get(MOUNTS, path)
    if row is None or row.body.get("leaving"):
        raise InvalidRequest(f"{nothing} {path}")
    return dict(row.body)


def _moved(context: Context, migration: str, old: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a mount's row says of its move."""
    now = micros(context.now)
    earlier = [*row.get("earlier", ()), [old, row.get("enabled_at", 0), now]]
    # Batch tokens that an earlier auth method gave out at the new path are older than this.
    return {"moved": {"id": migration, "from": old}, "enabled_at": now, "earlier": earlier[-_PLACES:]}


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
