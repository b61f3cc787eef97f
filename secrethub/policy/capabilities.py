"""What a rule can grant, as names for people and as bits for the decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

Capability: TypeAlias = Literal["create", "read", "update", "patch", "delete", "list", "sudo"]

BITS: dict[str, int] = {
    "create": 1,
    "read": 2,
    "update": 4,
    "patch": 8,
    "delete": 16,
    "list": 32,
    "sudo": 64,
}

EVERY = 127
"""All capabilities: what ``*`` means in a native document, ``sudo`` too."""

DENY = 128
"""Vault's ``deny``, which stands in the place of every other capability of a rule."""


def names(bits: int) -> tuple[str, ...]:
    """Return the names of ``bits``; ``deny`` alone when it is among them."""
    return ("deny",) if bits & DENY else tuple(name for name, bit in BITS.items() if bits & bit)


def union(capabilities: Iterable[str]) -> int:
    """Return the bits of capability names that are known to be valid."""
    bits = 0
    for name in capabilities:
        bits |= BITS[name]
    return bits
