"""What narrows one of Vault's rules beside its capabilities: the request's parameters, and wrapping.

``allowed_parameters`` and ``denied_parameters`` map names (in lower case, ``*`` for any other) to values; no
values mean any. A value is compared as it is, a string of two characters or more also as a pattern with ``*``
at its ends. The request's names are of any case here, but for ``required_parameters``: what is there has the
name that its operation reads, and is not null. They hold for create, read, update and patch; a request
without parameters has none that could be denied. ``min_wrapping_ttl`` and ``max_wrapping_ttl`` demand a
wrapped answer whose life is within them.

Several policies with the same path are united as Vault does it: the names of both, the values of both where
both have some, the shorter of two times. So a policy that asks for nothing takes nothing away from what
another asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.policy import strict
from secrethub.policy.conditions import Circumstances

NARROWING = (
    "allowed_parameters",
    "denied_parameters",
    "required_parameters",
    "min_wrapping_ttl",
    "max_wrapping_ttl",
)
_ASKED = frozenset({"create", "read", "update", "patch"})
_ANY = "*"


class Narrowing(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule asks of a request. Durations are seconds, 0 for none."""

    allowed: Mapping[str, tuple[Any, ...]] = {}
    denied: Mapping[str, tuple[Any, ...]] = {}
    required: frozenset[str] = frozenset()
    min_wrapping: int = 0
    max_wrapping: int = 0

    def united(self, other: Narrowing) -> Narrowing:
        """Return what two policies with the same path ask for together."""
        return Narrowing(
            allowed=_united(self.allowed, other.allowed),
            denied=_united(self.denied, other.denied),
            required=self.required | other.required,
            min_wrapping=min(filter(None, (self.min_wrapping, other.min_wrapping)), default=0),
            max_wrapping=min(filter(None, (self.max_wrapping, other.max_wrapping)), default=0),
        )

    def failing(self, capability: str, when: Circumstances | None) -> str | None:
        """Return the key that a request does not satisfy, or None."""
        if self.max_wrapping or self.min_wrapping:
            life = 0 if when is None else when.wrap_ttl
            if not life or (self.max_wrapping and life > self.max_wrapping):
                return "max_wrapping_ttl" if self.max_wrapping else "min_wrapping_ttl"
            if life < self.min_wrapping:
                return "min_wrapping_ttl"
        if capability not in _ASKED or not (self.allowed or self.denied or self.required):
            return None
        given = None if when is None else when.parameters()
        if given is None:
            return "allowed_parameters"  # what cannot be read is not what was allowed
        if not self.required <= {name for name, value in given.items() if value is not None}:
            return "required_parameters"
        # Each by itself: two names may differ by case only, and which one is read is the operation's to say.
        if any(_denies(self.denied, name.lower(), value) for name, value in given.items()):
            return "denied_parameters"
        if not all(_allows(self.allowed, name.lower(), value) for name, value in given.items()):
            return "allowed_parameters"
        return None


def _denies(denied: Mapping[str, tuple[Any, ...]], name: str, value: Any) -> bool:
    return _ANY in denied or (name in denied and _among(value, denied[name]))


def _allows(allowed: Mapping[str, tuple[Any, ...]], name: str, value: Any) -> bool:
    if not allowed:
        return True
    return _among(value, allowed[name]) if name in allowed else _ANY in allowed


def _among(value: Any, values: tuple[Any, ...]) -> bool:
    return not values or any(_equal(value, one) for one in values)


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        middle = wanted.removeprefix("*").removesuffix("*")
        if wanted == _ANY or "*" not in {wanted[:1], wanted[-1:]}:
            return value == wanted
        if wanted[0] == wanted[-1]:
            return middle in value
        return value.endswith(middle) if wanted[0] == "*" else value.startswith(middle)
    return type(value) is type(wanted) and value == wanted


def _united(
    one: Mapping[str, tuple[Any, ...]], other: Mapping[str, tuple[Any, ...]]
) -> Mapping[str, tuple[Any, ...]]:
    found = dict(one)
    for name, values in other.items():
        if name in found:
            # No values mean any, which is wider than some.
            found[name] = (*found[name], *values) if found[name] and values else ()
        else:
            found[name] = values
    return found


def parse_narrowing(body: Mapping[str, Any], place: str) -> Narrowing | None:
    """Read what narrows a rule; None when nothing does.

    Raises:
        InvalidRequest: a value is of the wrong kind; the message names the place.
    """
    if not any(name in body for name in NARROWING):
        return None
    required = strict.expect_list(body.get("required_parameters", ()), f"{place}.required_parameters")
    shortest = _ttl(body, "min_wrapping_ttl", place)
    longest = _ttl(body, "max_wrapping_ttl", place)
    if shortest and longest and longest < shortest:
        strict.refuse(place, "max_wrapping_ttl cannot be less than min_wrapping_ttl")
    return Narrowing(
        allowed=_parameters(body, "allowed_parameters", place),
        denied=_parameters(body, "denied_parameters", place),
        required=frozenset(
            strict.expect_text(name, f"{place}.required_parameters[{index}]").lower()
            for index, name in enumerate(required)
        ),
        min_wrapping=shortest,
        max_wrapping=longest,
    )


def _ttl(body: Mapping[str, Any], name: str, place: str) -> int:
    return strict.expect_seconds(body[name], f"{place}.{name}") if name in body else 0


def _parameters(body: Mapping[str, Any], name: str, place: str) -> Mapping[str, tuple[Any, ...]]:
    here = f"{place}.{name}"
    given = body.get(name, {})
    if isinstance(given, list) and len(given) == 1:
        given = given[0]  # written as a block
    return {
        parameter.lower(): tuple(strict.expect_list(values, strict.member(here, parameter)))
        for parameter, values in strict.expect_object(given, here).items()
    }
