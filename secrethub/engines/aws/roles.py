"""Roles: written, read, listed, deleted. Leases made before end as they would have."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.aws.role import Role, checked_role, compact_policy, find_role, role_of, tags
from secrethub.engines.aws.root import FORM
from secrethub.engines.engine import EMPTY, Answer, Context, Hidden, Operation
from secrethub.engines.kept import kept_key, kept_names
from secrethub.engines.listing import PAGES
from secrethub.errors import NotFound
from secrethub.storage.authority import ENGINE_ROLES
from secrethub.wire.durations import parse_duration

_ROLE = "roles/{role}"
_TIMES = ("default_sts_ttl", "max_sts_ttl")
_TAGS = ("iam_tags", "session_tags")


class WriteRole(Hidden, msgspec.Struct, frozen=True):
    """A role as it is written. What is absent keeps what it was, but another type begins anew.

    Attributes:
        credential_type: ``assumed_role``, ``federation_token`` or ``iam_user``.
        role_arns: roles of AWS that may be assumed.
        policy_arns: managed policies that give users their rights, or limit temporary credentials.
        policy_document: likewise, a policy of IAM as JSON.
        iam_groups: that users become members of.
        iam_tags: of users.
        session_tags: of sessions.
        external_id: that the roles of AWS ask for.
        default_sts_ttl: how long temporary credentials live.
        max_sts_ttl: at most.
        permissions_boundary_arn: a policy beyond which no user's rights go.
        user_path: of users.
    """

    credential_type: str | None = None
    role_arns: list[str] | None = None
    policy_arns: list[str] | None = None
    policy_document: str | dict[str, Any] | None = None
    iam_groups: list[str] | None = None
    iam_tags: dict[str, str | int | bool] | list[str] | str | None = None
    session_tags: dict[str, str | int | bool] | list[str] | str | None = None
    external_id: str | None = None
    default_sts_ttl: str | int | None = None
    max_sts_ttl: str | int | None = None
    permissions_boundary_arn: str | None = None
    user_path: str | None = None


def role_operations() -> tuple[Operation, ...]:
    """Return the operations on roles."""
    return (
        Operation(
            name="aws.role.list",
            method="list",
            pattern="roles",
            handler=list_roles,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List roles.",
        ),
        Operation(
            name="aws.role.read",
            method="read",
            pattern=_ROLE,
            handler=read_role,
            response=Role,
            capability="read",
            summary="Read a role.",
        ),
        Operation(
            name="aws.role.write",
            method="write",
            pattern=_ROLE,
            handler=write_role,
            response=Nothing,
            capability="update",
            request=WriteRole,
            changes=True,
            exists=role_exists,
            plain=frozenset(WriteRole.__struct_fields__) - {"external_id"},
            summary="Write a role.",
        ),
        Operation(
            name="aws.role.delete",
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
    told: dict[str, Any] = msgspec.to_builtins(role)
    return Answer(data=told)


async def write_role(context: Context, body: WriteRole) -> Answer:
    """Write a role; credentials given out from now on follow it.

    Raises:
        InvalidRequest: a value cannot be, or they do not go together.
    """
    core, key = context.core, _key(context)
    row = await core.authority.get(ENGINE_ROLES, key)
    old = None if row is None else role_of(row)
    if old is not None and body.credential_type in {None, old.credential_type}:
        fields: dict[str, Any] = msgspec.to_builtins(old)
    else:
        fields = {}
    role: Role = checked_role({**fields, **_given(body)})
    async with core.authority.change(context.fence) as change:
        await change.put(
            ENGINE_ROLES,
            key,
            msgspec.to_builtins(role),
            owner=context.mount_id,
            expected_revision=0 if row is None else row.revision,
        )
    return EMPTY


async def delete_role(context: Context, _body: None) -> Answer:
    """Delete a role; that there is none is no error."""
    async with context.core.authority.change(context.fence) as change:
        await change.delete(ENGINE_ROLES, _key(context))
    return EMPTY


def _given(body: WriteRole) -> dict[str, Any]:
    """Return what was given, in the forms of :class:`Role`."""
    given: dict[str, Any] = {}
    for name in WriteRole.__struct_fields__:
        value = getattr(body, name)
        if value is None:
            continue
        if name in _TIMES:
            value = parse_duration(value)
        elif name in _TAGS:
            value = tags(value, name)
        elif name == "policy_document":
            value = compact_policy(value)
        given[name] = value
    return given


def _key(context: Context) -> str:
    return kept_key(context.mount_id, FORM, context.params["role"])
