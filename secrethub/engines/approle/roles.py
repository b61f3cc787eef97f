"""Roles and their RoleIDs: listed, read, written, deleted."""

from __future__ import annotations

import logging

import msgspec

from secrethub.auth.digests import role_id_digest
from secrethub.engines.answers import Names, Nothing
from secrethub.engines.approle.role import (
    Role,
    RoleAnswer,
    WriteRole,
    changed,
    checked_role_id,
    load_role,
    named_key,
    role_exists,
    role_of,
    shown,
)
from secrethub.engines.auth_methods import belongs
from secrethub.engines.bindings import Subject, end_bindings
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.listing import PAGES
from secrethub.engines.listing import shown as shown_names
from secrethub.engines.own_changes import own_changes
from secrethub.engines.token.unknown_policies import unknown_when_written
from secrethub.errors import InvalidRequest, NotFound, Sealed, Stale, Unavailable
from secrethub.ids import new_uuid
from secrethub.storage.authority import APPROLES, ROLE_IDS, SECRET_IDS, Change

_ROLE = "role/{role}"

_log = logging.getLogger(__name__)


class RoleIdAnswer(msgspec.Struct, frozen=True):
    """A role's RoleID."""

    role_id: str


class WriteRoleId(Hidden, msgspec.Struct, frozen=True):
    """A chosen RoleID."""

    role_id: str


def role_operations() -> tuple[Operation, ...]:
    """Return the operations on roles and RoleIDs."""
    return (
        Operation(
            name="approle.role.list",
            method="list",
            pattern="role",
            handler=list_roles,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List roles.",
        ),
        Operation(
            name="approle.role.read",
            method="read",
            pattern=_ROLE,
            handler=read_role,
            response=RoleAnswer,
            capability="read",
            summary="Read a role.",
        ),
        Operation(
            name="approle.role.write",
            method="write",
            pattern=_ROLE,
            handler=write_role,
            response=Nothing,
            capability="update",
            request=WriteRole,
            changes=True,
            exists=role_exists,
            plain=frozenset(WriteRole.__struct_fields__) - {"role_id"},
            summary="Write a role.",
        ),
        Operation(
            name="approle.role.delete",
            method="delete",
            pattern=_ROLE,
            handler=delete_role,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a role and its SecretIDs. Its tokens cannot be renewed any more.",
        ),
        Operation(
            name="approle.role-id.read",
            method="read",
            pattern=_ROLE + "/role-id",
            handler=read_role_id,
            response=RoleIdAnswer,
            capability="read",
            summary="Read a role's RoleID.",
        ),
        Operation(
            name="approle.role-id.write",
            method="write",
            pattern=_ROLE + "/role-id",
            handler=write_role_id,
            response=Nothing,
            capability="update",
            request=WriteRoleId,
            changes=True,
            summary="Choose a role's RoleID.",
        ),
    )


async def list_roles(context: Context, _body: None) -> Answer:
    """Answer the names of the mount's roles."""
    rows, broken = await context.core.authority.everything(APPROLES)
    for trouble in broken.values():
        raise trouble
    own = sorted(row.body["name"] for row in rows if belongs(context.mount_id, row.key))
    names = await shown_names(context, own)
    if not names:
        raise NotFound("no roles")
    return Answer(data={"keys": names})


async def read_role(context: Context, _body: None) -> Answer:
    """Answer a role's settings."""
    return Answer(data=shown(await load_role(context)))


async def write_role(context: Context, body: WriteRole) -> Answer:
    """Write a role; agents and later logins have its policies at once."""
    core, key = context.core, named_key(context)
    async with core.authority.change(context.fence) as change:
        row = await change.get(APPROLES, key)
        old = None if row is None else role_of(row)
        role = changed(old or Role(name=context.params["role"], uuid=new_uuid(), role_id=new_uuid()), body)
        if body.role_id:
            role = msgspec.structs.replace(role, role_id=checked_role_id(body.role_id))
        await _store(context, change, key, role, old)
    return Answer(warnings=await unknown_when_written(core, body, role.token_policies))


async def _store(context: Context, change: Change, key: str, role: Role, old: Role | None) -> None:
    """Write a role, and its RoleID if that is another one than before.

    Raises:
        InvalidRequest: the RoleID is another role's.
    """
    body = msgspec.to_builtins(role)
    await change.put(APPROLES, key, body, expected_revision=0 if old is None else None)
    if old is not None and old.role_id == role.role_id:
        return
    keyring = context.core.keyring()
    digest = role_id_digest(keyring, context.mount_id, role.role_id)
    if await change.get(ROLE_IDS, digest) is not None:
        raise InvalidRequest("this RoleID is in use")
    if old is not None:
        await change.delete(ROLE_IDS, role_id_digest(keyring, context.mount_id, old.role_id))
    await change.put(ROLE_IDS, digest, {"role": key}, owner=key, expected_revision=0)


async def delete_role(context: Context, _body: None) -> Answer:
    """Delete a role with its RoleID, SecretIDs and bindings; its agents lose their rights at once."""
    core, key = context.core, named_key(context)
    async with core.authority.change(context.fence) as change:
        row = await change.get(APPROLES, key)
        if row is None:
            return Answer()
        role = role_of(row)
        await change.delete(APPROLES, key)
        await change.delete(ROLE_IDS, role_id_digest(core.keyring(), context.mount_id, role.role_id))
        for failure in await end_bindings(change, [Subject("approle", key)]):
            core.metrics.integrity_failures.labels(failure.table).inc()
    # SecretIDs are bound to the role that is gone, so their rows can go without holding anybody up.
    await _remove_secret_ids(context, key)
    return Answer()


async def _remove_secret_ids(context: Context, key: str) -> None:
    core = context.core
    after = ""
    try:
        while page := await core.authority.keys(SECRET_IDS, owner=key, after=after):
            after = page[-1]
            await core.ledger.look()
            async with (
                own_changes(core, "approle.role.delete", context.path) as fence,
                core.authority.issue(fence) as change,
            ):
                _, failures = await change.delete_many(SECRET_IDS, page)
            for failure in failures:
                core.metrics.integrity_failures.labels(failure.table).inc()
                _log.error("a SecretID of a deleted role could not be removed: %s", failure)
    except (Stale, Sealed, Unavailable) as exc:
        _log.warning("SecretIDs of a deleted role, which nobody can use, were left: %s", exc.code)


async def read_role_id(context: Context, _body: None) -> Answer:
    """Answer a role's RoleID."""
    return Answer(data={"role_id": (await load_role(context)).role_id})


async def write_role_id(context: Context, body: WriteRoleId) -> Answer:
    """Give a role a chosen RoleID; the former one is void."""
    chosen, key = checked_role_id(body.role_id), named_key(context)
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(APPROLES, key)
        if row is None:
            raise NotFound("no such role")
        old = role_of(row)
        await _store(context, change, key, msgspec.structs.replace(old, role_id=chosen), old)
    return Answer()
