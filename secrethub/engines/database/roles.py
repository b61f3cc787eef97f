"""Roles: written, read, listed, deleted. Leases made before keep what they need to end."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.database.answers import RoleAnswer
from secrethub.engines.database.connection import used_connection
from secrethub.engines.database.fields import listed
from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.role import FORM, Role, find_role, role_of
from secrethub.engines.database.target import Owned, Statements
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.kept import kept_key, kept_names
from secrethub.engines.listing import PAGES
from secrethub.errors import InvalidRequest, NotFound
from secrethub.storage.authority import ENGINE_ROLES
from secrethub.wire.durations import parse_duration

_ROLE = "roles/{role}"
_STATEMENTS = {
    "creation": "creation_statements",
    "revocation": "revocation_statements",
    "rollback": "rollback_statements",
    "renew": "renew_statements",
}


class WriteRole(msgspec.Struct, frozen=True):
    """A role as it is written. What is absent keeps what it was.

    Attributes:
        db_name: the connection that it uses.
        creation_statements: make a user, with ``{{name}}``, ``{{password}}`` and ``{{expiration}}``.
        revocation_statements: end it; absent for what is usual.
        rollback_statements: take back a creation that came to no lease.
        renew_statements: let it live longer.
        owned_objects: ``reassign`` or ``drop`` what it owns when it is ended as usual.
        default_ttl: how long it lives to begin with.
        max_ttl: how long it lives at most.
        credential_type: ``password``.
    """

    db_name: str | None = None
    creation_statements: str | list[str] | None = None
    revocation_statements: str | list[str] | None = None
    rollback_statements: str | list[str] | None = None
    renew_statements: str | list[str] | None = None
    owned_objects: str | None = None
    default_ttl: str | int | None = None
    max_ttl: str | int | None = None
    credential_type: str | None = None


def role_operations() -> tuple[Operation, ...]:
    """Return the operations on roles."""
    return (
        Operation(
            name="database.role.list",
            method="list",
            pattern="roles",
            handler=list_roles,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List roles.",
        ),
        Operation(
            name="database.role.read",
            method="read",
            pattern=_ROLE,
            handler=read_role,
            response=RoleAnswer,
            capability="read",
            summary="Read a role.",
        ),
        Operation(
            name="database.role.write",
            method="write",
            pattern=_ROLE,
            handler=write_role,
            response=Nothing,
            capability="update",
            request=WriteRole,
            changes=True,
            exists=role_exists,
            plain=frozenset(WriteRole.__struct_fields__),
            summary="Write a role.",
        ),
        Operation(
            name="database.role.delete",
            method="delete",
            pattern=_ROLE,
            handler=delete_role,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a role; its leases go on.",
        ),
    )


async def list_roles(context: Context, _body: None) -> Answer:
    """Answer the names of roles."""
    return Answer(data={"keys": await kept_names(context, ENGINE_ROLES, FORM)})


async def role_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await find_role(context.core, context.mount_id, context.params["role"]) is not None


async def read_role(context: Context, _body: None) -> Answer:
    """Answer a role."""
    role = await find_role(context.core, context.mount_id, context.params["role"])
    if role is None:
        raise NotFound("no such role")
    return Answer(
        data={
            "db_name": role.db_name,
            **{field: list(getattr(role.statements, name)) for name, field in _STATEMENTS.items()},
            "owned_objects": role.statements.owned,
            "default_ttl": role.default_ttl,
            "max_ttl": role.max_ttl,
            "credential_type": "password",
        }
    )


async def write_role(context: Context, body: WriteRole) -> Answer:
    """Write a role; users made from now on are made after it.

    Raises:
        InvalidRequest: a value cannot be, or there is no such connection.
    """
    core, key = context.core, _key(context)
    row = await core.authority.get(ENGINE_ROLES, key)
    role = _changed(Role(key=key, db_name="") if row is None else role_of(row), body)
    connection = await used_connection(core, context.mount_id, role.db_name)
    plugin_of(connection.plugin_name).check_statements(role.statements)
    async with core.authority.change(context.fence) as change:
        await change.put(
            ENGINE_ROLES,
            key,
            role.body(),
            owner=context.mount_id,
            expected_revision=0 if row is None else row.revision,
        )
    return EMPTY


async def delete_role(context: Context, _body: None) -> Answer:
    """Delete a role; that there is none is no error."""
    async with context.core.authority.change(context.fence) as change:
        await change.delete(ENGINE_ROLES, _key(context))
    return EMPTY


def _key(context: Context) -> str:
    return kept_key(context.mount_id, FORM, context.params["role"])


def _changed(role: Role, body: WriteRole) -> Role:
    if body.credential_type not in {None, "", "password"}:
        raise InvalidRequest("credential_type is password")
    given: dict[str, Any] = {
        name: listed(value)
        for name, field in _STATEMENTS.items()
        if (value := getattr(body, field)) is not None
    }
    if body.owned_objects is not None:
        if body.owned_objects not in get_args(Owned):
            raise InvalidRequest(f"owned_objects is one of {', '.join(get_args(Owned))}")
        given["owned"] = body.owned_objects
    statements: Statements = msgspec.structs.replace(role.statements, **given)
    changed = msgspec.structs.replace(
        role,
        statements=statements,
        db_name=role.db_name if body.db_name is None else body.db_name,
        default_ttl=role.default_ttl if body.default_ttl is None else parse_duration(body.default_ttl),
        max_ttl=role.max_ttl if body.max_ttl is None else parse_duration(body.max_ttl),
    )
    if 0 < changed.max_ttl < changed.default_ttl:
        raise InvalidRequest("default_ttl is longer than max_ttl")
    if not changed.db_name:
        raise InvalidRequest("db_name is needed: the connection that the role uses")
    return changed
