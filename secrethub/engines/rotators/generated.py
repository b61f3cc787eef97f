"""A generated value: whoever uses it takes it from here, so there is no target to tell."""

from __future__ import annotations

import math
import secrets as random
import string
from collections.abc import Mapping
from typing import Any

from secrethub.engines.database.passwords import check_policy, new_password
from secrethub.engines.rotators.rotator import Plan, Setup
from secrethub.errors import InvalidRequest

DEFAULT_LENGTH = 32
DEFAULT_CHARSET = "letters,digits"

_LONGEST = 4096
_FEWEST_BITS = 64
_POLICY = "password_policy"
_MAX_FIELD = 128
_SETS = {
    "lower": string.ascii_lowercase,
    "upper": string.ascii_uppercase,
    "letters": string.ascii_letters,
    "digits": string.digits,
    "hex": "0123456789abcdef",
    "symbols": "!#$%&()*+,-./:;<=>?@[]^_{|}~",
    "safe": "-._~",
}
"""By the names that ``charset`` has; ``safe`` needs no escaping in a URL (RFC 3986, section 2.3)."""


class Shape:
    """What generated values look like.

    Attributes:
        field: of the secret.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        """Read options.

        Raises:
            InvalidRequest: they ask for what cannot be, or for what could be guessed.
        """
        self.field = _field(options)
        length = options.get("length", str(DEFAULT_LENGTH))
        if not length.isascii() or not length.isdigit() or not 0 < int(length[:9]) <= _LONGEST:
            raise InvalidRequest(f"length is between 1 and {_LONGEST}")
        self._length = int(length)
        names = options.get("charset", DEFAULT_CHARSET).split(",")
        if any(name not in _SETS for name in names):
            raise InvalidRequest(f"charset is a list of {', '.join(_SETS)}")
        self._sets = tuple(dict.fromkeys(_SETS[name] for name in names))
        self._characters = "".join(dict.fromkeys("".join(self._sets)))
        if self._length < len(self._sets):
            raise InvalidRequest("length leaves no room for a character of each set")
        if self._length * math.log2(len(self._characters)) < _FEWEST_BITS:
            raise InvalidRequest(f"such a value has fewer than {_FEWEST_BITS} bits and could be guessed")

    def value(self) -> str:
        """Return a random value with a character of each set at least; each such value is as likely."""
        while True:
            value = "".join(random.choice(self._characters) for _ in range(self._length))
            if all(any(character in wanted for character in value) for wanted in self._sets):
                return value


def _field(options: Mapping[str, str]) -> str:
    field = options.get("field", "value")
    if not 0 < len(field) <= _MAX_FIELD or not field.isprintable():
        raise InvalidRequest("field is the name of a field of the secret")
    return field


class GeneratedRotator:
    """Kind ``generated``."""

    kind = "generated"
    options = frozenset({"field", "length", "charset", _POLICY})
    secrets: frozenset[str] = frozenset()

    def check(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> None:  # noqa: ARG002
        """Check the shape of values; that of a password policy is its own."""
        if not options.get(_POLICY):
            Shape(options)
            return
        _field(options)
        if {"length", "charset"} & options.keys():
            raise InvalidRequest("a password policy has its own length and charset")

    async def probe(self, setup: Setup, current: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Look whether there is the password policy, if one is named."""
        await check_policy(setup.core, setup.options.get(_POLICY, ""))

    def needs(self, options: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing beyond the secret itself."""
        return ()

    async def plan(
        self,
        setup: Setup,
        current: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Plan a new random value.

        Raises:
            InvalidRequest: there is no such password policy.
        """
        policy = setup.options.get(_POLICY, "")
        if policy:
            return {_field(setup.options): (await new_password(setup.core, policy)).reveal()}, {}
        shape = Shape(setup.options)
        return {shape.field: shape.value()}, {}

    async def create(self, setup: Setup, plan: Plan) -> Mapping[str, Any]:  # noqa: ARG002
        """There is nobody to tell."""
        return {}

    async def verify(self, setup: Setup, plan: Plan) -> None:
        """Likewise."""

    async def retire(self, setup: Setup, plan: Plan) -> None:
        """The old version stays in the secret's history for as long as that keeps it."""

    async def undo(self, setup: Setup, plan: Plan) -> None:
        """Likewise: the secret gets its old value back by itself."""
