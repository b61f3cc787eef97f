"""A role's settings one by one: each has a path of its own, so that a policy can give the right to it alone.

A write takes what its path names and nothing else. A deletion brings back what a new role has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from secrethub.engines.answers import Nothing
from secrethub.engines.approle.role import (
    Role,
    RoleAnswer,
    WriteRole,
    changed,
    checked,
    load_role,
    named_key,
    role_of,
    shown,
)
from secrethub.engines.engine import Answer, Context, Handler, Operation
from secrethub.engines.token.unknown_policies import unknown_when_written
from secrethub.errors import InvalidRequest, NotFound
from secrethub.storage.authority import APPROLES

_NEW: Mapping[str, Any] = {
    field.name: field.default
    for field in msgspec.structs.fields(Role)
    if field.default is not msgspec.NODEFAULT
}
_HINTS = get_type_hints(WriteRole)
_READ = get_type_hints(RoleAnswer)


class LocalAnswer(msgspec.Struct, frozen=True):
    """Whether a role's SecretIDs are those of one cluster of several."""

    local_secret_ids: bool


@dataclass(frozen=True, slots=True)
class _Field:
    """One path below a role.

    Attributes:
        path: its last segment.
        setting: what it is called in the role.
        names: of the body's fields; the first is the newer one.
    """

    path: str
    setting: str
    names: tuple[str, ...]


_FIELDS = (
    _Field("policies", "token_policies", ("token_policies", "policies")),
    _Field("bind-secret-id", "bind_secret_id", ("bind_secret_id",)),
    _Field("bound-cidr-list", "secret_id_bound_cidrs", ("bound_cidr_list",)),
    _Field("secret-id-bound-cidrs", "secret_id_bound_cidrs", ("secret_id_bound_cidrs",)),
    _Field("secret-id-num-uses", "secret_id_num_uses", ("secret_id_num_uses",)),
    _Field("secret-id-ttl", "secret_id_ttl", ("secret_id_ttl",)),
    _Field("token-bound-cidrs", "token_bound_cidrs", ("token_bound_cidrs",)),
    _Field("token-num-uses", "token_num_uses", ("token_num_uses",)),
    _Field("token-ttl", "token_ttl", ("token_ttl",)),
    _Field("token-max-ttl", "token_max_ttl", ("token_max_ttl",)),
    _Field("token-type", "token_type", ("token_type",)),
    _Field("period", "token_period", ("token_period", "period")),
)


def field_operations() -> tuple[Operation, ...]:
    """Return the operations on single settings."""
    return (
        *(operation for field in _FIELDS for operation in _operations(field)),
        Operation(
            name="approle.role.local-secret-ids.read",
            method="read",
            pattern="role/{role}/local-secret-ids",
            handler=_read_local,
            response=LocalAnswer,
            capability="read",
            summary="Tell that a role's SecretIDs belong to the whole cluster.",
        ),
    )


def _operations(field: _Field) -> tuple[Operation, ...]:
    pattern, name = f"role/{{role}}/{field.path}", f"approle.role.{field.path}"
    request = msgspec.defstruct(
        "Write" + field.path.title().replace("-", ""),
        [(given, _HINTS[given], None) for given in field.names],
        frozen=True,
        namespace={"__doc__": f"``{field.names[0]}`` of a role."},
    )
    response = msgspec.defstruct(
        "Shown" + field.path.title().replace("-", ""),
        [(given, _READ[field.setting]) for given in field.names],
        frozen=True,
        namespace={"__doc__": f"``{field.names[0]}`` of a role."},
    )
    return (
        Operation(
            name=f"{name}.read",
            method="read",
            pattern=pattern,
            handler=_reader(field),
            response=response,
            capability="read",
            summary=f"Read {field.names[0]} of a role.",
        ),
        Operation(
            name=f"{name}.write",
            method="write",
            pattern=pattern,
            handler=_writer(field),
            response=Nothing,
            capability="update",
            request=request,
            changes=True,
            plain=frozenset(field.names),
            summary=f"Write {field.names[0]} of a role.",
        ),
        Operation(
            name=f"{name}.delete",
            method="delete",
            pattern=pattern,
            handler=_eraser(field),
            response=Nothing,
            capability="delete",
            changes=True,
            summary=f"Give a role the {field.names[0]} of a new one.",
        ),
    )


def _reader(field: _Field) -> Handler:
    async def read(context: Context, _body: None) -> Answer:
        value = shown(await load_role(context))[field.setting]
        return Answer(data=dict.fromkeys(field.names, value))

    return read


def _writer(field: _Field) -> Handler:
    async def write(context: Context, body: msgspec.Struct) -> Answer:
        given = {name: value for name in field.names if (value := getattr(body, name)) is not None}
        if not given or given in ({"secret_id_bound_cidrs": []}, {"bound_cidr_list": []}):
            raise InvalidRequest(f"missing {field.names[0]}")

        written = WriteRole(**given)
        role = await _change(context, lambda role: changed(role, written))
        return Answer(warnings=await unknown_when_written(context.core, written, role.token_policies))

    return write


def _eraser(field: _Field) -> Handler:
    async def erase(context: Context, _body: None) -> Answer:
        def settle(role: Role) -> Role:
            return checked(msgspec.structs.replace(role, **{field.setting: _NEW[field.setting]}))

        await _change(context, settle)
        return Answer()

    return erase


async def _change(context: Context, settle: Callable[[Role], Role]) -> Role:
    key = named_key(context)
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(APPROLES, key)
        if row is None:
            raise NotFound("no such role")
        role = settle(role_of(row))
        await change.put(APPROLES, key, msgspec.to_builtins(role))
    return role


async def _read_local(context: Context, _body: None) -> Answer:
    await load_role(context)
    return Answer(data={"local_secret_ids": False})
