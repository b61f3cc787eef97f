"""When names of an auth method are locked after failed logins: what a mount's tuning may say of it.

The settings are Vault's ``user_lockout_config``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.auth.lockout import Lockout
from secrethub.errors import InvalidRequest
from secrethub.wire.durations import parse_duration

LOCKING = "userpass"
"""The kind of auth method that locks names."""
_MOST = 1000
_LONGEST = 365 * 86_400
_NAMES = frozenset(
    {"lockout_threshold", "lockout_duration", "lockout_counter_reset_duration", "lockout_disable"}
)


def changed_lockout(kind: str, present: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of a mount's settings once ``given`` is in force.

    Args:
        kind: of the auth method.
        present: the mount's settings.
        given: ``user_lockout_config``; what is absent or null stays as it is.

    Raises:
        InvalidRequest: it cannot be had.
    """
    wanted = {name: value for name, value in given.items() if value is not None and value != ""}
    if not wanted:
        return dict(present)
    if kind != LOCKING:
        raise InvalidRequest(f"user_lockout_config is a setting of type {LOCKING}")
    if unknown := sorted(wanted.keys() - _NAMES):
        raise InvalidRequest(f"user_lockout_config has no {unknown[0]!r}")
    rules = msgspec.convert(present.get("lockout", {}), Lockout)
    rules = Lockout(
        threshold=_threshold(wanted.get("lockout_threshold", rules.threshold)),
        duration=_seconds("lockout_duration", wanted.get("lockout_duration", rules.duration)),
        reset=_seconds(
            "lockout_counter_reset_duration", wanted.get("lockout_counter_reset_duration", rules.reset)
        ),
        disabled=_flag(wanted.get("lockout_disable", rules.disabled)),
    )
    return {**present, "lockout": msgspec.to_builtins(rules)}


def shown_lockout(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``user_lockout_config`` as Vault shows it: durations in seconds."""
    rules = msgspec.convert(settings.get("lockout", {}), Lockout)
    return {
        "lockout_threshold": rules.threshold,
        "lockout_duration": rules.duration,
        "lockout_counter_reset_duration": rules.reset,
        "lockout_disable": rules.disabled,
    }


def _threshold(value: object) -> int:
    try:
        number = msgspec.convert(value, int, strict=False) if not isinstance(value, bool) else 0
    except msgspec.ValidationError:
        number = 0
    if not 1 <= number <= _MOST:
        raise InvalidRequest(f"lockout_threshold is a number from 1 to {_MOST}")
    return number


def _seconds(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidRequest(f"{name} is a duration")
    seconds = parse_duration(value)
    if not 1 <= seconds <= _LONGEST:
        raise InvalidRequest(f"{name} is between 1s and 365d")
    return seconds


def _flag(value: object) -> bool:
    try:
        return msgspec.convert(value, bool, strict=False)
    except msgspec.ValidationError:
        raise InvalidRequest("lockout_disable is true or false") from None
