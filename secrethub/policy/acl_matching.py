"""Which of Vault's rules decides about a path.

One rule wins, the one that Vault would choose: the exact path; otherwise, of all patterns that match, by
these rules in turn:

1. the one whose first ``+`` or ``*`` comes later;
2. one that does not end in ``*`` before one that does;
3. the one with fewer ``+`` segments;
4. the longer one;
5. the one that is lexicographically greater.

The same path in several policies is one rule with the union of the capabilities, or ``deny`` if any of
them denies. A list is asked with a trailing slash: the exact path with it, then without it, then the
patterns without it, then with it. So a broad pattern that matches without the slash wins over a narrower
one that needs it, as in Vault since 1.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from secrethub.policy.acl_parameters import Narrowing
from secrethub.policy.capabilities import DENY
from secrethub.policy.conditions import Circumstances

Rank: TypeAlias = tuple[int, bool, int, int, bytes]


@dataclass(slots=True, eq=False)
class AclEntry:
    """Vault's rules for one path, of all policies that have it."""

    path: str
    capabilities: int = 0
    sources: list[tuple[str, int]] = field(default_factory=list)
    narrowing: Narrowing | None = None

    def merge(self, policy: str, capabilities: int, narrowing: Narrowing | None = None) -> None:
        """Add what another policy says about this path."""
        united = self.capabilities | capabilities
        self.capabilities = DENY if united & DENY else united
        if not self.sources:
            self.narrowing = narrowing
        elif self.narrowing is not None or narrowing is not None:
            self.narrowing = (self.narrowing or Narrowing()).united(narrowing or Narrowing())
        self.sources.append((policy, capabilities))

    def failing(self, capability: str, when: Circumstances | None) -> str | None:
        """Return the key that keeps the rule from holding for a request, or None."""
        return None if self.narrowing is None else self.narrowing.failing(capability, when)


class _Pattern:
    """A pattern with ``+`` segments."""

    __slots__ = ("_parts", "_prefix", "_start", "entry", "rank")

    def __init__(self, path: str, entry: AclEntry) -> None:
        bare = path.removesuffix("*")
        first = path.index("+")
        self.entry = entry
        self._prefix = bare != path
        self._parts = bare.split("/")
        self._start = path[:first]
        self.rank = _rank(bare, len(path[:first].encode()), self._prefix, self._parts.count("+"))

    def matches(self, path: str, parts: list[str]) -> bool:
        """Tell whether the path, also given in its segments, matches."""
        mine = self._parts
        if not path.startswith(self._start) or len(parts) < len(mine):
            return False
        if not self._prefix and len(parts) != len(mine):
            return False
        last = len(mine) - 1
        for index, part in enumerate(mine):
            if part not in ("+", parts[index]):
                return self._prefix and index == last and parts[index].startswith(part)
        return True


class AclIndex:
    """All rules of an identity in Vault's language."""

    __slots__ = ("_exact", "_lengths", "_patterns", "_prefixes", "_ranks")

    def __init__(
        self, rules: Sequence[tuple[str, str, int] | tuple[str, str, int, Narrowing | None]]
    ) -> None:
        """Build from (policy, path, capabilities) and what narrows them, if anything does."""
        self._exact: dict[str, AclEntry] = {}
        self._prefixes: dict[str, AclEntry] = {}
        patterns: dict[str, AclEntry] = {}
        for policy, path, capabilities, *narrowing in rules:
            if path == "+" or path.startswith("+/") or "/+" in path:
                entry = patterns.setdefault(path, AclEntry(path))
            elif path.endswith("*"):
                entry = self._prefixes.setdefault(path[:-1], AclEntry(path))
            else:
                entry = self._exact.setdefault(path, AclEntry(path))
            entry.merge(policy, capabilities, *narrowing)
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self._ranks = {prefix: _rank(prefix, len(prefix.encode()), True, 0) for prefix in self._prefixes}
        self._patterns = sorted(
            (_Pattern(path, entry) for path, entry in patterns.items()),
            key=lambda pattern: pattern.rank,
            reverse=True,
        )

    def find(self, path: str, *, listing: bool) -> AclEntry | None:
        """Return the rule that decides about ``path`` (canonical, without a trailing slash)."""
        if not listing:
            return self._exact.get(path) or self._matching(path)
        folder = path + "/"
        return (
            self._exact.get(folder) or self._exact.get(path) or self._matching(path) or self._matching(folder)
        )

    def _matching(self, path: str) -> AclEntry | None:
        best: AclEntry | None = None
        best_prefix = ""
        for length in self._lengths:
            best = self._prefixes.get(path[:length])
            if best is not None:
                best_prefix = path[:length]
                break
        if not self._patterns:
            return best
        floor = None if best is None else self._ranks[best_prefix]
        parts = path.split("/")
        for pattern in self._patterns:
            if floor is not None and pattern.rank < floor:
                break
            if pattern.matches(path, parts):
                return pattern.entry
        return best


def _rank(bare: str, first: int, prefix: bool, wildcards: int) -> Rank:
    """Return what patterns are compared by, greater wins; positions and lengths count bytes, as in Go."""
    encoded = bare.encode()
    return first, not prefix, -wildcards, len(encoded), encoded
