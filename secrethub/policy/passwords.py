"""Password policies: how long a password is and of which characters. Pure; the caller brings the dice.

Vault's language, in HCL and in its JSON form::

    length = 24
    rule "charset" { charset = "abcdefghijklmnopqrstuvwxyz" }
    rule "charset" { charset = "0123456789" min-chars = 2 }

A password is made of the characters of all rules, and of each rule's at least ``min-chars``.

It is built, not searched for: first what the rules ask for, then the rest from all characters, then
shuffled. So each takes the same few steps whatever the rules are, and a policy that is stored can always
be met; the price is that the counts of rules may not add up to more than the length, even where one
character could count for two rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from secrethub.errors import InvalidRequest
from secrethub.policy import strict
from secrethub.policy.hcl import load_hcl

SHORTEST = 4
LONGEST = 100
WEAK = 64
"""Bits below which a password can be guessed by trying, from a copy of what verifies it."""
_MOST_RULES = 32
_LARGEST = 4096


class CharsetRule(msgspec.Struct, frozen=True, kw_only=True):
    """Characters that a password may have, each once, and of how many of them it has at least."""

    charset: str
    min_chars: int = 0


class PasswordPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that can be met.

    Attributes:
        length: characters of a password.
        rules: at least one.
    """

    length: int
    rules: tuple[CharsetRule, ...]

    @property
    def alphabet(self) -> str:
        """Every character that a password may have, once."""
        return _once("".join(rule.charset for rule in self.rules))

    @property
    def bits(self) -> float:
        """Entropy of a password, at least: what the shuffling adds is left out."""
        asked = sum(rule.min_chars for rule in self.rules)
        parts = [rule.min_chars * math.log2(len(rule.charset)) for rule in self.rules]
        return math.fsum([*parts, (self.length - asked) * math.log2(len(self.alphabet))])

    def generate(self, below: Callable[[int], int]) -> str:
        """Return a fresh password.

        Args:
            below: returns a number from 0 to its argument, that excluded, each as likely as the others
                and none that could be foretold, such as :func:`secrets.randbelow`.
        """
        asked = [rule.charset for rule in self.rules for _ in range(rule.min_chars)]
        from_sets = [*asked, *[self.alphabet] * (self.length - len(asked))]
        made = [charset[below(len(charset))] for charset in from_sets]
        for last in range(len(made) - 1, 0, -1):  # Fisher and Yates: every order is as likely
            other = below(last + 1)
            made[last], made[other] = made[other], made[last]
        return "".join(made)


def parse_password_policy(source: str) -> PasswordPolicy:
    """Read a policy, in HCL or JSON.

    Raises:
        InvalidRequest: it is none, or no password could meet it.
    """
    if not source.strip():
        raise InvalidRequest("the policy is empty")
    if source.lstrip().startswith("{"):
        document = strict.expect_object(strict.load(source), "$")
    else:
        document = load_hcl(source)
    strict.expect_keys(document, "$", ("length", "rule"))
    length = _whole(document["length"], "$.length")
    if not SHORTEST <= length <= LONGEST:
        strict.refuse("$.length", f"passwords have from {SHORTEST} to {LONGEST} characters")
    rules = tuple(
        _rule(body, place)
        for kinds, outer in _each(document["rule"], "$.rule")
        for body, place in _charsets(kinds, outer)
    )
    if not 1 <= len(rules) <= _MOST_RULES:
        strict.refuse("$.rule", f"a policy has from 1 to {_MOST_RULES} rules")
    if sum(rule.min_chars for rule in rules) > length:
        strict.refuse("$.rule", "the rules ask for more characters than a password has")
    return PasswordPolicy(length=length, rules=rules)


def _each(value: Any, place: str) -> list[tuple[Mapping[str, Any], str]]:
    """Return an object, or the objects of a list, with their places."""
    if isinstance(value, (list, tuple)):
        places = [f"{place}[{index}]" for index in range(len(value))]
        return [(strict.expect_object(item, here), here) for item, here in zip(value, places, strict=True)]
    return [(strict.expect_object(value, place), place)]


def _charsets(kinds: Mapping[str, Any], place: str) -> list[tuple[Mapping[str, Any], str]]:
    strict.expect_keys(kinds, place, ("charset",))
    return _each(kinds["charset"], f"{place}.charset")


def _rule(body: Mapping[str, Any], place: str) -> CharsetRule:
    strict.expect_keys(body, place, ("charset",), ("min-chars",))
    charset = _once(strict.expect_text(body["charset"], f"{place}.charset"))
    if not 1 <= len(charset) <= _LARGEST:
        strict.refuse(f"{place}.charset", f"a rule has from 1 to {_LARGEST} characters")
    if not charset.isprintable():
        strict.refuse(f"{place}.charset", "a character cannot be printed")
    least = _whole(body.get("min-chars", 0), f"{place}.min-chars")
    if not 0 <= least <= LONGEST:
        strict.refuse(f"{place}.min-chars", f"from 0 to {LONGEST}")
    return CharsetRule(charset=charset, min_chars=least)


def _once(charset: str) -> str:
    """Return each character once: one that is written twice would come twice as often."""
    return "".join(dict.fromkeys(charset))


def _whole(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        strict.refuse(place, "expected a whole number")
    return value
