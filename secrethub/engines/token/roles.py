"""Token roles, each saying what tokens made by way of it may and must be: written, read, listed, deleted."""

from __future__ import annotations

import msgspec

from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.token.role import TokenRole, WriteTokenRole, changed_role
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_identity_value
from secrethub.storage.authority import TOKEN_ROLES, Row


class TokenRoleAnswer(msgspec.Struct, frozen=True):
    """A role as it is read, under both names where there are two."""

    allowed_entity_aliases: list[str]
    allowed_policies: list[str]
    allowed_policies_glob: list[str]
    disallowed_policies: list[str]
    disallowed_policies_glob: list[str]
    explicit_max_ttl: int
    name: str
    orphan: bool
    path_suffix: str
    period: int
    renewable: bool
    token_bound_cidrs: list[str]
    token_explicit_max_ttl: int
    token_no_default_policy: bool
    token_num_uses: int
    token_period: int
    token_type: str


def role_operations() -> tuple[Operation, ...]:
    """Return the operations on token roles."""
    return (
        Operation(
            name="token.role.list",
            method="list",
            pattern="roles",
            handler=list_roles,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List token roles.",
        ),
        Operation(
            name="token.role.read",
            method="read",
            pattern="roles/{role}",
            handler=read_role,
            response=TokenRoleAnswer,
            capability="read",
            summary="Read a token role.",
        ),
        Operation(
            name="token.role.write",
            method="write",
            pattern="roles/{role}",
            handler=write_role,
            response=Nothing,
            capability="update",
            request=WriteTokenRole,
            changes=True,
            exists=role_exists,
            plain=frozenset(WriteTokenRole.__struct_fields__),
            summary="Write a token role.",
        ),
        Operation(
            name="token.role.delete",
            method="delete",
            pattern="roles/{role}",
            handler=delete_role,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Delete a token role. Tokens made by it live on and cannot be renewed.",
        ),
    )


def role_name(context: Context) -> str:
    """Return the role that the path names.

    Raises:
        InvalidRequest: not a name.
    """
    name = context.params["role"]
    if not is_identity_value(name) or len(name) > 128:
        raise InvalidRequest("a role name has 1 to 128 characters of A-Z, a-z, 0-9, '_', '.' and '-'")
    return name


def role_of(row: Row) -> TokenRole:
    """Return the role of a row."""
    return msgspec.convert(row.body, TokenRole)


async def load_role(context: Context) -> TokenRole | None:
    """Return the role that the path names, or None."""
    row = await context.core.authority.get(TOKEN_ROLES, role_name(context))
    return None if row is None else role_of(row)


async def role_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await load_role(context) is not None


async def list_roles(context: Context, _body: None) -> Answer:
    """Answer the names of all roles."""
    context.depends("issued", f"{TOKEN_ROLES.name}/")
    rows, broken = await context.core.authority.everything(TOKEN_ROLES)
    for trouble in broken.values():
        raise trouble
    names = await shown(context, sorted(row.key for row in rows))
    if not names:
        raise NotFound("no roles")
    return Answer(data={"keys": names})


async def read_role(context: Context, _body: None) -> Answer:
    """Answer a role's settings, under both names where there are two."""
    name = role_name(context)
    context.depends("issued", f"{TOKEN_ROLES.name}/{name}")
    role = await load_role(context)
    if role is None:
        raise NotFound("no such role")
    return Answer(
        data={
            "allowed_entity_aliases": [],
            "allowed_policies": list(role.allowed_policies),
            "allowed_policies_glob": list(role.allowed_policies_glob),
            "disallowed_policies": list(role.disallowed_policies),
            "disallowed_policies_glob": list(role.disallowed_policies_glob),
            "explicit_max_ttl": role.explicit_max_ttl,
            "name": name,
            "orphan": role.orphan,
            "path_suffix": role.path_suffix,
            "period": role.period,
            "renewable": role.renewable,
            "token_bound_cidrs": list(role.bound_cidrs),
            "token_explicit_max_ttl": role.explicit_max_ttl,
            "token_no_default_policy": role.no_default_policy,
            "token_num_uses": role.num_uses,
            "token_period": role.period,
            "token_type": role.token_type,
        }
    )


async def write_role(context: Context, body: WriteTokenRole) -> Answer:
    """Write a role; what it was changes only for tokens made or renewed from now on."""
    name, core = role_name(context), context.core
    known = await core.authority.get(TOKEN_ROLES, name)
    opened = core.authority.change(context.fence) if known else core.authority.issue(context.fence)
    async with opened as change:
        row = await change.get(TOKEN_ROLES, name)
        role = changed_role(TokenRole() if row is None else role_of(row), body)
        await change.put(
            TOKEN_ROLES, name, msgspec.to_builtins(role), expected_revision=0 if known is None else None
        )
    return Answer(detail={"role": name})


async def delete_role(context: Context, _body: None) -> Answer:
    """Delete a role; that there is none is no error, as in Vault."""
    name, core = role_name(context), context.core
    if await core.authority.get(TOKEN_ROLES, name) is None:
        return EMPTY
    async with core.authority.change(context.fence) as change:
        await change.delete(TOKEN_ROLES, name)
    return Answer(detail={"role": name})
