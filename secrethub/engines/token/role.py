"""A token role: its form, and how it is written. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from secrethub.auth.networks import parse_networks
from secrethub.engines.text import plain_text
from secrethub.engines.token.settings import check_batch, checked_uses, either
from secrethub.errors import InvalidRequest
from secrethub.ids import is_identity_value
from secrethub.policy.builtin import normalise_policy_name, policy_names
from secrethub.wire.durations import parse_duration

_MOST = 64
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


def changed_role(role: TokenRole, body: WriteTokenRole) -> TokenRole:
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
            given[name] = _names(names, name)
    for name in ("allowed_policies_glob", "disallowed_policies_glob"):
        if (globs := getattr(body, name)) is not None:
            given[name] = tuple(sorted({_glob(one, name) for one in _few(globs, name)}))
    for name in ("orphan", "renewable"):
        if (value := getattr(body, name)) is not None:
            given[name] = value
    if body.path_suffix is not None:
        given["path_suffix"] = _suffix(body.path_suffix)
    for name in ("period", "explicit_max_ttl"):
        seconds = either(body, f"token_{name}", name)
        if seconds is not None:
            given[name] = parse_duration(seconds)
    if body.token_type is not None:
        given["token_type"] = _type(body.token_type)
    if body.token_num_uses is not None:
        given["num_uses"] = checked_uses(body.token_num_uses, "token_num_uses")
    cidrs = either(body, "token_bound_cidrs", "bound_cidrs")
    if cidrs is not None:
        given["bound_cidrs"] = tuple(parse_networks(cidrs))
    if body.token_no_default_policy is not None:
        given["no_default_policy"] = body.token_no_default_policy
    changed = msgspec.structs.replace(role, **given)
    check_batch(
        changed.token_type,
        token_num_uses=changed.num_uses,
        token_period=changed.period,
        token_explicit_max_ttl=changed.explicit_max_ttl,
    )
    return changed


def _names(given: list[str], name: str) -> tuple[str, ...]:
    names = policy_names(_few(given, name))
    if given and not names:
        raise InvalidRequest(f"{name} names nothing: an empty list would allow everything")
    return names


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
