"""What an auth method's role, user or certificate says about the tokens that it gives. Pure.

The names are those of Vault's ``token_`` parameters, which every auth method has. ``0``, ``""`` and empty
lists ask for nothing. A value that would narrow the tokens is honoured or refused, never dropped.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from secrethub.auth.networks import parse_networks
from secrethub.engines.engine import Hidden
from secrethub.errors import InvalidRequest
from secrethub.policy.builtin import ROOT, WRAPPING, policy_names
from secrethub.wire.durations import parse_duration

MAX_USES = (1 << 31) - 1
"""The largest number of uses that can be counted."""

_MOST_POLICIES = 63
"""One less than a token has, for ``default`` comes to them."""
_TYPES = {
    "": "default",
    "default": "default",
    "service": "service",
    "batch": "batch",
    "default-service": "service",
    "default-batch": "batch",
}


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What tokens are like.

    Attributes:
        token_policies: names, besides ``default``.
        token_ttl: seconds until it ends or is renewed; 0 for the system's maximum.
        token_max_ttl: seconds from its creation that renewals reach.
        token_explicit_max_ttl: the same, for periodic tokens too.
        token_period: seconds that each renewal gives, without a maximum of the system.
        token_num_uses: requests that it is good for.
        token_bound_cidrs: networks that it is good from, canonical.
        token_no_default_policy: without ``default``.
        token_type: ``default`` is ``service``.
    """

    token_policies: tuple[str, ...] = ()
    token_ttl: int = 0
    token_max_ttl: int = 0
    token_explicit_max_ttl: int = 0
    token_period: int = 0
    token_num_uses: int = 0
    token_bound_cidrs: tuple[str, ...] = ()
    token_no_default_policy: bool = False
    token_type: Literal["default", "service", "batch"] = "default"  # noqa: S105 - a kind, not a secret


class WriteTokenSettings(Hidden, msgspec.Struct, frozen=True):
    """The settings as they are written. What is absent keeps what it was.

    Names without ``token_`` are older ones.
    """

    token_policies: list[str] | None = None
    policies: list[str] | None = None
    token_ttl: str | int | None = None
    token_max_ttl: str | int | None = None
    token_explicit_max_ttl: str | int | None = None
    token_period: str | int | None = None
    period: str | int | None = None
    token_num_uses: int | None = None
    token_bound_cidrs: list[str] | None = None
    token_no_default_policy: bool | None = None
    token_type: str | None = None
    token_strictly_bind_ip: bool | None = None


def token_changes(body: WriteTokenSettings) -> dict[str, Any]:
    """Return what is to be changed, in the form of :class:`TokenSettings`.

    Raises:
        InvalidRequest: a value that cannot be, or that would narrow tokens and is not enforced.
    """
    if body.token_strictly_bind_ip:
        raise InvalidRequest("token_strictly_bind_ip is not supported")
    given: dict[str, Any] = {}
    policies = either(body, "token_policies", "policies")
    if policies is not None:
        given["token_policies"] = _policies(policies)
    for name in ("token_ttl", "token_max_ttl", "token_explicit_max_ttl"):
        if (value := getattr(body, name)) is not None:
            given[name] = parse_duration(value)
    period = either(body, "token_period", "period")
    if period is not None:
        given["token_period"] = parse_duration(period)
    if body.token_num_uses is not None:
        given["token_num_uses"] = checked_uses(body.token_num_uses, "token_num_uses")
    if body.token_bound_cidrs is not None:
        given["token_bound_cidrs"] = tuple(parse_networks(body.token_bound_cidrs))
    if body.token_no_default_policy is not None:
        given["token_no_default_policy"] = body.token_no_default_policy
    if body.token_type is not None:
        if body.token_type not in _TYPES:
            raise InvalidRequest("token_type is default, service or batch")
        given["token_type"] = _TYPES[body.token_type]
    return given


def check_tokens(settings: TokenSettings) -> None:
    """Check that settings go together.

    Raises:
        InvalidRequest: they do not.
    """
    if settings.token_max_ttl and settings.token_ttl > settings.token_max_ttl:
        raise InvalidRequest("token_ttl should not be greater than token_max_ttl")
    check_batch(
        settings.token_type,
        token_num_uses=settings.token_num_uses,
        token_period=settings.token_period,
        token_explicit_max_ttl=settings.token_explicit_max_ttl,
    )


def check_batch(kind: str, **not_in_batches: int) -> None:
    """Check that a setting that batch tokens cannot have is not given to them.

    Args:
        kind: of token.
        not_in_batches: such settings by name; 0 asks for nothing.

    Raises:
        InvalidRequest: one is given.
    """
    for name, value in not_in_batches.items():
        if kind == "batch" and value:
            raise InvalidRequest(f"'token_type' cannot be 'batch' when {name!r} is set")


def shown_tokens(settings: TokenSettings) -> dict[str, Any]:
    """Return the settings as they are read."""
    told = msgspec.to_builtins(settings)
    return {name: told[name] for name in TokenSettings.__struct_fields__}


def checked_uses(given: int, name: str) -> int:
    """Return a number of uses.

    Raises:
        InvalidRequest: negative, or more than can be counted.
    """
    if not 0 <= given <= MAX_USES:
        raise InvalidRequest(f"{name} is between 0 and {MAX_USES}")
    return given


def either(body: msgspec.Struct, name: str, older: str) -> Any:
    """Return a value that has two names.

    Raises:
        InvalidRequest: both were given and differ: either may be meant to narrow.
    """
    new, old = getattr(body, name), getattr(body, older)
    if new is not None and old is not None and new != old:
        raise InvalidRequest(f"{name} and its older name {older} differ")
    return old if new is None else new


def _policies(given: list[str]) -> tuple[str, ...]:
    names = policy_names(given)
    for never in (ROOT, WRAPPING):
        if never in names:
            raise InvalidRequest(f"a login cannot give out {never}")
    if len(names) > _MOST_POLICIES:
        raise InvalidRequest(f"at most {_MOST_POLICIES} policies can be given")
    return names
