"""A role: its form, its key, how it is written. Rules, and the two reads that everybody needs.

A role's key is what :func:`~secrethub.engines.auth_methods.row_name` gives.
"""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.auth.networks import bounds_somebody, parse_networks
from secrethub.engines.auth_methods import row_name
from secrethub.engines.engine import Context
from secrethub.engines.token.settings import (
    TokenSettings,
    WriteTokenSettings,
    check_tokens,
    checked_uses,
    either,
    token_changes,
)
from secrethub.errors import InvalidRequest, NotFound
from secrethub.ids import is_identity_value
from secrethub.storage.authority import APPROLES, Row
from secrethub.wire.durations import parse_duration

LONGEST_ID = 256
"""Characters of RoleIDs and SecretIDs."""

_LONGEST_NAME = 128
_SHORTEST_ID = 8
IDS = f"{_SHORTEST_ID} to {LONGEST_ID} printable characters, and no space at either end"
"""What can be chosen, for errors."""
_MISSING = "no such role"


class Role(TokenSettings, frozen=True, kw_only=True):
    """A role.

    Attributes:
        name: as in paths.
        uuid: of this role; one made anew under its name is another.
        role_id: names the role in logins; not secret.
        bind_secret_id: whether a login needs a SecretID.
        secret_id_ttl: seconds that SecretIDs are good for at most; 0 for ever.
        secret_id_num_uses: logins that each is good for at most; 0 for any number.
        secret_id_bound_cidrs: networks that logins may come from, canonical.
    """

    name: str
    uuid: str
    role_id: str
    bind_secret_id: bool = True
    secret_id_ttl: int = 0
    secret_id_num_uses: int = 0
    secret_id_bound_cidrs: tuple[str, ...] = ()


class RoleAnswer(TokenSettings, frozen=True, kw_only=True):
    """A role as it is read, some settings under older names too."""

    bind_secret_id: bool
    secret_id_ttl: int
    secret_id_num_uses: int
    secret_id_bound_cidrs: list[str] | None
    local_secret_ids: bool
    policies: list[str]
    period: int


class WriteRole(WriteTokenSettings, frozen=True):
    """A role as it is written. What is absent keeps what it was.

    ``bound_cidr_list`` is an older name of ``secret_id_bound_cidrs``.
    """

    role_id: str | None = None
    secret_id_ttl: str | int | None = None
    secret_id_num_uses: int | None = None
    secret_id_bound_cidrs: list[str] | None = None
    bound_cidr_list: list[str] | None = None
    bind_secret_id: bool | None = None
    local_secret_ids: bool | None = None
    enable_local_secret_ids: bool | None = None


def role_key(mount: str, name: str) -> str:
    """Return the key of a role's row: its name as it is, since policies see the path as it is.

    Args:
        mount: UUID of its mount.
        name: within it.

    Raises:
        InvalidRequest: not a name.
    """
    if not is_identity_value(name) or len(name) > _LONGEST_NAME:
        raise InvalidRequest(
            f"a role name has 1 to {_LONGEST_NAME} characters of A-Z, a-z, 0-9, '_', '.' and '-'"
        )
    return row_name(mount, name)


def role_of(row: Row) -> Role:
    """Return the role of a row."""
    return msgspec.convert(dict(row.body), Role)


def named_key(context: Context) -> str:
    """Return the key of the role that the path names.

    Raises:
        InvalidRequest: not a name.
    """
    return role_key(context.mount_id, context.params["role"])


async def load_role(context: Context) -> Role:
    """Return the role that the path names.

    Raises:
        NotFound: there is none.
        IntegrityFailure: its row is not authentic.
    """
    row = await context.core.authority.get(APPROLES, named_key(context))
    if row is None:
        raise NotFound(_MISSING)
    return role_of(row)


async def role_exists(context: Context) -> bool:
    """Tell whether a write would update rather than create."""
    return await context.core.authority.get(APPROLES, named_key(context)) is not None


def changed(role: Role, body: WriteRole) -> Role:
    """Return the role with what was given; its RoleID is another matter.

    Raises:
        InvalidRequest: a value that cannot be, or that would narrow the role and is not enforced.
    """
    if body.local_secret_ids or body.enable_local_secret_ids:
        name = "local_secret_ids" if body.local_secret_ids else "enable_local_secret_ids"
        raise InvalidRequest(f"{name} is not supported: a cluster has no replicas that would share SecretIDs")
    given = token_changes(body)
    if body.secret_id_ttl is not None:
        given["secret_id_ttl"] = parse_duration(body.secret_id_ttl)
    if body.secret_id_num_uses is not None:
        given["secret_id_num_uses"] = checked_uses(body.secret_id_num_uses, "secret_id_num_uses")
    cidrs = _bound_cidrs(body)
    if cidrs is not None:
        given["secret_id_bound_cidrs"] = cidrs
    if body.bind_secret_id is not None:
        given["bind_secret_id"] = body.bind_secret_id
    return checked(msgspec.structs.replace(role, **given))


def checked(role: Role) -> Role:
    """Return the role if its settings go together.

    Raises:
        InvalidRequest: they do not, or anybody could log in.
    """
    check_tokens(role)
    if not role.bind_secret_id and not (
        bounds_somebody(role.secret_id_bound_cidrs) or bounds_somebody(role.token_bound_cidrs)
    ):
        raise InvalidRequest(
            "a role without a SecretID would let anybody in: bind_secret_id must be true, "
            "unless secret_id_bound_cidrs or token_bound_cidrs say where logins come from"
        )
    return role


def checked_role_id(text: str) -> str:
    """Return a chosen RoleID.

    Raises:
        InvalidRequest: it cannot be one.
    """
    if not is_id(text):
        raise InvalidRequest(f"a RoleID has {IDS}")
    return text


def is_id(text: str) -> bool:
    """Tell whether a RoleID or a SecretID can be chosen so; a login takes no notice of spaces around it."""
    return _SHORTEST_ID <= len(text) <= LONGEST_ID and text.isprintable() and text == text.strip()


def shown(role: Role) -> dict[str, Any]:
    """Return a role as it is read, under the older names too."""
    told = msgspec.to_builtins(role)
    hidden = {"name", "uuid", "role_id"}
    return {
        **{name: value for name, value in told.items() if name not in hidden},
        "local_secret_ids": False,
        "policies": told["token_policies"],
        "period": role.token_period,
        "secret_id_bound_cidrs": told["secret_id_bound_cidrs"] or None,
    }


def _bound_cidrs(body: WriteRole) -> tuple[str, ...] | None:
    """Return what SecretIDs are to be bound to, under whichever name it was given; None to keep it."""
    canonical = msgspec.structs.replace(
        body,
        **{
            name: parse_networks(cidrs)
            for name in ("secret_id_bound_cidrs", "bound_cidr_list")
            if (cidrs := getattr(body, name)) is not None
        },
    )
    found = either(canonical, "secret_id_bound_cidrs", "bound_cidr_list")
    return None if found is None else tuple(found)
