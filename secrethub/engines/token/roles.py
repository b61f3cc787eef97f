"""Token roles: what tokens that are made by way of a role may and must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from secrethub.auth.networks import parse_networks
from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.text import plain_text
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_identity_value
from secrethub.policy.builtin import normalise_policy_name
from secrethub.storage.authority import TOKEN_ROLES, Row
from secrethub.wire.durations import parse_duration

_MOST = 64
_MAX_USES = (1 << 31) - 1
_TYPES = {"": "default-service", "default": "default-service"}
_KNOWN_TYPES = frozenset({"service", "batch", "default-service", "default-batch"})


class TokenRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role. ``0``, ``""`` and empty lists ask for nothing.

    Attributes:
        allowed_policies: all that its tokens may have; globs beside it.
        disallowed_policies: what none of them has; globs beside it.
        orphan: its tokens have no parent.
        renewable: whether they can be renewed.
        path_suffix: comes after the path that they say they were made at.
        period: seconds; makes them periodic.
        explicit_max_ttl: seconds that no renewal passes.
        token_type: ``service``, ``batch``, or one of them unless the request says otherwise.
        num_uses: requests that each is good for at most.
        bound_cidrs: networks that they are good from.
        no_default_policy: they do not get ``default``.
    """

    allowed_policies: tuple[str, ...] = ()
    allowed_policies_glob: tuple[str, ...] = ()
    disallowed_policies: tuple[str, ...] = ()
    disallowed_policies_glob: tuple[str, ...] = ()
    orphan: bool = False
    renewable: bool = True
    path_suffix: str = ""
    period: int = 0
    explicit_max_ttl: int = 0
    token_type: Literal["service", "batch", "default-service", "default-batch"] = "default-service"  # noqa: S105
    num_uses: int = 0
    bound_cidrs: tuple[str, ...] = ()
    no_default_policy: bool = False


class WriteTokenRole(msgspec.Struct, frozen=True):
    """A role as it is written. What is absent keeps what it was; names without ``token_`` are older ones."""

    allowed_policies: list[str] | None = None
    allowed_policies_glob: list[str] | None = None
    disallowed_policies: list[str] | None = None
    disallowed_policies_glob: list[str] | None = None
    orphan: bool | None = None
    renewable: bool | None = None
    path_suffix: str | None = None
    token_period: str | int | None = None
    period: str | int | None = None
    token_explicit_max_ttl: str | int | None = None
    explicit_max_ttl: str | int | None = None
    token_type: str | None = None
    token_num_uses: int | None = None
    token_bound_cidrs: list[str] | None = None
    bound_cidrs: list[str] | None = None
    token_no_default_policy: bool | None = None
    token_strictly_bind_ip: bool | None = None
    allowed_entity_aliases: list[str] | None = None


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
        role = _changed(TokenRole() if row is None else role_of(row), body)
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


def _changed(role: TokenRole, body: WriteTokenRole) -> TokenRole:
    """Return the role with what was given.

    Raises:
        InvalidRequest: a value that cannot be, or that would narrow its tokens and is not enforced.
    """
    for unknown in ("token_strictly_bind_ip", "allowed_entity_aliases"):
        if getattr(body, unknown):
            raise InvalidRequest(f"{unknown} is not supported")
    given: dict[str, Any] = {}
    for name in ("allowed_policies", "disallowed_policies"):
        if (names := getattr(body, name)) is not None:
            given[name] = tuple(sorted({normalise_policy_name(one) for one in _few(names, name)}))
    for name in ("allowed_policies_glob", "disallowed_policies_glob"):
        if (globs := getattr(body, name)) is not None:
            given[name] = tuple(sorted({_glob(one, name) for one in _few(globs, name)}))
    for name in ("orphan", "renewable"):
        if (value := getattr(body, name)) is not None:
            given[name] = value
    if body.path_suffix is not None:
        given["path_suffix"] = _suffix(body.path_suffix)
    for name in ("period", "explicit_max_ttl"):
        seconds = _either(body, f"token_{name}", name)
        if seconds is not None:
            given[name] = parse_duration(seconds)
    if body.token_type is not None:
        given["token_type"] = _type(body.token_type)
    if body.token_num_uses is not None:
        given["num_uses"] = _uses(body.token_num_uses)
    cidrs = _either(body, "token_bound_cidrs", "bound_cidrs")
    if cidrs is not None:
        given["bound_cidrs"] = tuple(parse_networks(cidrs))
    if body.token_no_default_policy is not None:
        given["no_default_policy"] = body.token_no_default_policy
    changed = msgspec.structs.replace(role, **given)
    _check_batch(changed)
    return changed


def _check_batch(role: TokenRole) -> None:
    if role.token_type != "batch":  # noqa: S105 - a kind, not a secret
        return
    wrong: Mapping[str, bool] = {
        "token_num_uses": bool(role.num_uses),
        "token_period": bool(role.period),
        "token_explicit_max_ttl": bool(role.explicit_max_ttl),
    }
    for name, set_ in wrong.items():
        if set_:
            raise InvalidRequest(f"'token_type' cannot be 'batch' when {name!r} is set")


def _either(body: WriteTokenRole, name: str, older: str) -> Any:
    """Return a value that has two names.

    Raises:
        InvalidRequest: both were given and differ: either may be meant to narrow the role.
    """
    new, old = getattr(body, name), getattr(body, older)
    if new is not None and old is not None and new != old:
        raise InvalidRequest(f"{name} and its older name {older} differ")
    return old if new is None else new


def _few(names: list[str], name: str) -> list[str]:
    if len(names) > _MOST:
        raise InvalidRequest(f"{name} has more than {_MOST} entries")
    return names


def _glob(text: str, name: str) -> str:
    normalise_policy_name(text.replace("*", "x"))
    return plain_text(text, name, 128).lower()


def _suffix(text: str) -> str:
    if text and (not all(is_identity_value(part) for part in text.split("/")) or len(text) > 128):
        raise InvalidRequest("path_suffix has up to 128 characters of A-Z, a-z, 0-9, '_', '.', '-' and '/'")
    return text


def _type(given: str) -> str:
    kind = _TYPES.get(given, given)
    if kind not in _KNOWN_TYPES:
        raise InvalidRequest("token_type is service, batch, default-service or default-batch")
    return kind


def _uses(given: int) -> int:
    if not 0 <= given <= _MAX_USES:
        raise InvalidRequest(f"token_num_uses is between 0 and {_MAX_USES}")
    return given
