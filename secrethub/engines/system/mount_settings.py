"""What may be asked of a mount, when it is made and later: rules without IO.

Vault's clients send every setting, those that were not asked for as empty. What is not done here is refused
unless it is empty, never dropped: who asked for it would rely on something that is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from secrethub.auth.tokens import MAX_TTL
from secrethub.engines.auth_methods import AUTH_METHODS
from secrethub.engines.engine import Hidden
from secrethub.engines.system.lockout_settings import changed_lockout
from secrethub.engines.text import plain_text
from secrethub.errors import InvalidRequest
from secrethub.wire.durations import parse_duration

DEFAULT_TTL = MAX_TTL
"""Seconds that leases of a mount live, at most too, unless the mount says otherwise."""

_AUTH = frozenset({"token", *AUTH_METHODS})
_LIMITED = frozenset({"kv", "flat", *_AUTH})
"""What takes limits of leases: auth methods for their tokens, and engines without any, for whoever asks."""
_MAX_DESCRIPTION = 1024
_TAKEN = frozenset(
    {
        "default_lease_ttl",
        "max_lease_ttl",
        "description",
        "options",
        "listing_visibility",
        "token_type",
        "user_lockout_config",
    }
)
_STORES = ("kv", "kv-v1", "kv-v2")
_SYSTEM = "system"
"""In place of a duration: what holds for the whole cluster."""


class MountConfig(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a mount. Those that are not explained here are known only to be refused.

    Attributes:
        default_lease_ttl: how long leases live; absent to keep it, ``system`` or 0 for the cluster's.
        max_lease_ttl: likewise, at most.
        description: for people.
        options: of the engine: ``version`` for a key/value store.
        listing_visibility: ``hidden``, as all mounts are to those who may not use them.
        token_type: of an auth method's tokens: ``default-service``.
        user_lockout_config: when names are locked (:mod:`secrethub.engines.system.lockout_settings`).
    """

    default_lease_ttl: str | int | None = None
    max_lease_ttl: str | int | None = None
    description: str | None = None
    options: dict[str, Any] | None = None
    force_no_cache: bool = False
    listing_visibility: str = ""
    audit_non_hmac_request_keys: list[str] = []
    audit_non_hmac_response_keys: list[str] = []
    passthrough_request_headers: list[str] = []
    allowed_response_headers: list[str] = []
    allowed_managed_keys: list[str] = []
    delegated_auth_accessors: list[str] = []
    identity_token_key: str = ""
    token_type: str = ""
    plugin_name: str = ""
    plugin_version: str = ""
    user_lockout_config: dict[str, Any] | None = None


class EnableRequest(Hidden, msgspec.Struct, frozen=True):
    """A new mount: a key/value store, or one of the auth methods."""

    type: str
    description: str = ""
    options: dict[str, Any] | None = None
    config: MountConfig | None = None
    local: bool = False
    seal_wrap: bool = False
    external_entropy_access: bool = False
    plugin_name: str = ""
    plugin_version: str = ""


def new_mount(body: EnableRequest, leased: Collection[str] = ()) -> dict[str, Any]:
    """Return what is stored of a new mount, besides what tells it from others.

    Args:
        body: what is asked for.
        leased: the kinds of engine that lease things out.

    Raises:
        InvalidRequest: it cannot be had.
    """
    if body.type in leased:
        if _given(body.options):
            raise InvalidRequest(f"an engine of type {body.type} has no options")
        return _made(body, body.type, body.description, {})
    if body.type not in _STORES:
        raise InvalidRequest(
            f"the type of a secrets engine is one of {', '.join((*_STORES, *sorted(leased)))}"
        )
    version = _version(body)
    return _made(body, "kv", body.description, {"version": version})


def new_auth_mount(body: EnableRequest) -> dict[str, Any]:
    """Return what is stored of a new auth method, besides what tells it from others.

    Raises:
        InvalidRequest: it cannot be had.
    """
    method = AUTH_METHODS.get(body.type)
    if method is None:
        known = ", ".join(sorted(AUTH_METHODS))
        raise InvalidRequest(f"auth methods that can be enabled: {known}")
    if _given(body.options):
        raise InvalidRequest("auth methods have no options")
    return _made(body, body.type, body.description or method.description, {})


def _made(body: EnableRequest, kind: str, description: str, options: dict[str, str]) -> dict[str, Any]:
    for name in ("local", "seal_wrap", "external_entropy_access", "plugin_version"):
        if getattr(body, name):
            raise InvalidRequest(f"{name} is not supported")
    if body.plugin_name not in {"", body.type}:
        raise InvalidRequest("there are no plugins")
    made = {
        "type": kind,
        "description": plain_text(description, "description", _MAX_DESCRIPTION),
        "options": options,
    }
    config = body.config or MountConfig()
    if config.description or config.options:
        raise InvalidRequest("description and options are given beside config, not in it")
    _check_token_type(config, auth=kind in _AUTH)
    settings = changed_lockout(kind, {}, config.user_lockout_config or {})
    return made | lease_limits(made, config) | ({"settings": settings} if settings else {})


def tuned(mount: Mapping[str, Any], config: MountConfig, leased: Collection[str] = ()) -> dict[str, Any]:
    """Return what is stored of a mount once ``config`` is in force.

    Args:
        mount: what is stored of it.
        config: what is to change.
        leased: the kinds of engine that lease things out.

    Raises:
        InvalidRequest: it cannot be had.
    """
    limits = lease_limits(mount, config)
    if any(limits.values()) and mount["type"] not in {*_LIMITED, *leased}:
        raise InvalidRequest(f"limits of leases are not supported by type {mount['type']}")
    _check_token_type(config, auth=mount["type"] in _AUTH)
    for name, value in _given(config.options).items():
        if name not in mount["options"] or str(value) != mount["options"][name]:
            raise InvalidRequest(f"the option {name!r} of this mount cannot be changed")
    changed = {**mount, **limits}
    if config.user_lockout_config:
        present = mount.get("settings", {})
        changed["settings"] = changed_lockout(mount["type"], present, config.user_lockout_config)
    if config.description is not None:
        changed["description"] = plain_text(config.description, "description", _MAX_DESCRIPTION)
    return changed


def lease_limits(mount: Mapping[str, Any], config: MountConfig) -> dict[str, int]:
    """Return the limits of a mount's leases, in seconds, 0 for the cluster's.

    Args:
        mount: what is stored of the mount; what is not given stays as it is there.
        config: what is to change.

    Raises:
        InvalidRequest: no durations, one that contradicts the other, or a setting that is not supported.
    """
    _check_supported(config)
    default = _ttl(config.default_lease_ttl, mount.get("default_lease_ttl", 0))
    most = _ttl(config.max_lease_ttl, mount.get("max_lease_ttl", 0))
    if default > (most or DEFAULT_TTL):
        raise InvalidRequest("default_lease_ttl is greater than max_lease_ttl")
    return {"default_lease_ttl": default, "max_lease_ttl": most}


def _given(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (options or {}).items() if value is not None}


def _ttl(given: str | int | None, present: int) -> int:
    if given is None or given == "":
        return present
    return 0 if given == _SYSTEM else parse_duration(given)


def _version(body: EnableRequest) -> str:
    options = _given(body.options)
    if others := sorted(options.keys() - {"version"}):
        raise InvalidRequest(f"a key/value store has no option {others[0]!r}")
    # In Vault, type kv alone is version 1.
    chosen = str(options.get("version") or ("2" if body.type == "kv-v2" else "1"))
    if chosen not in {"1", "2"} or body.type == f"kv-v{3 - int(chosen)}":
        raise InvalidRequest("a key/value store has version 1 or 2, and the type does not contradict it")
    return chosen


def _check_token_type(config: MountConfig, *, auth: bool) -> None:
    if config.token_type not in ({"", "default-service", "service"} if auth else {""}):
        raise InvalidRequest("token_type is default-service: a role can make batch tokens, a mount does not")


def _check_supported(config: MountConfig) -> None:
    if config.listing_visibility not in {"", "hidden"}:
        raise InvalidRequest("mounts are listed to those who may use them: listing_visibility is hidden")
    for name in MountConfig.__struct_fields__:
        if name not in _TAKEN and getattr(config, name):
            raise InvalidRequest(f"{name} is not supported")
