"""Which native rules apply to a path: every rule that matches counts.

All paths form one tree of segments that is walked along the request path with the set of places reached
so far, so the cost is bounded by the number of segments times the size of that set; there is no
backtracking that the author of a policy could blow up.

A list asks about the folder and what is in it: ``secrets/prod/*`` matches a list of ``secrets/prod``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from secrethub.policy.conditions import Circumstances, Conditions


class NativeRule(NamedTuple):
    """One path of one statement. ``capabilities`` are bits."""

    policy: str
    path: str
    denies: bool
    capabilities: int
    conditions: Conditions | None = None

    def failing(self, when: Circumstances | None) -> str | None:
        """Return the name of a condition that keeps the rule from holding now, or None."""
        return None if self.conditions is None else self.conditions.failing(when, unknown_holds=self.denies)


class Bits(NamedTuple):
    """Capabilities that are allowed and denied; whether another time or place could give others."""

    allowed: int
    denied: int
    conditional: bool


_NO_BITS = Bits(0, 0, conditional=False)


class _Glob:
    """A segment with ``*`` in it: pieces that must appear in this order."""

    __slots__ = ("_end", "_least", "_middle", "_start", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._start, *middle, self._end = text.split("*")
        self._middle = [piece for piece in middle if piece]
        self._least = len(self._start) + len(self._end)

    def matches(self, segment: str) -> bool:
        """Tell whether the whole segment matches; taking the first place for each piece suffices."""
        if len(segment) < self._least:
            return False
        if not (segment.startswith(self._start) and segment.endswith(self._end)):
            return False
        at, end = len(self._start), len(segment) - len(self._end)
        for piece in self._middle:
            found = segment.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


@dataclass(slots=True, eq=False)
class _Place:
    """A node of the tree: what may come next, and what holds when the path ends here."""

    repeats: bool = False
    literal: dict[str, _Place] = field(default_factory=dict)
    globs: list[tuple[_Glob, _Place]] = field(default_factory=list)
    any: _Place | None = None
    deep: _Place | None = None
    rules: list[NativeRule] = field(default_factory=list)
    conditional: list[NativeRule] = field(default_factory=list)
    allowed: int = 0
    denied: int = 0


class NativeIndex:
    """All native rules of an identity."""

    __slots__ = ("_empty", "_root")

    def __init__(self, rules: Sequence[NativeRule]) -> None:
        self._root = _Place()
        self._empty = not rules
        for rule in rules:
            place = self._root
            for segment in rule.path.split("/"):
                place = _next(place, segment)
            place.rules.append(rule)
            if rule.conditions is not None:
                place.conditional.append(rule)
            elif rule.denies:
                place.denied |= rule.capabilities
            else:
                place.allowed |= rule.capabilities

    def bits(self, path: str, when: Circumstances | None, *, listing: bool) -> Bits:
        """Return the capabilities that are allowed and those that are denied at ``path`` now."""
        if self._empty:
            return _NO_BITS
        allowed = denied = 0
        conditional = False
        for place in self._reached(path, listing):
            allowed |= place.allowed
            denied |= place.denied
            for rule in place.conditional:
                conditional = True
                if rule.failing(when) is not None:
                    continue
                if rule.denies:
                    denied |= rule.capabilities
                else:
                    allowed |= rule.capabilities
        return Bits(allowed, denied, conditional)

    def matching(self, path: str, *, listing: bool) -> Iterator[NativeRule]:
        """Yield every rule that matches."""
        for place in self._reached(path, listing):
            yield from place.rules

    def _reached(self, path: str, listing: bool) -> list[_Place]:
        """Return the places where ``path`` ends, those of the folder's content included for a list."""
        reached = _with_deep([self._root])
        for segment in path.split("/"):
            if not reached:
                return reached
            reached = _step(reached, segment)
        if listing:
            inside = _step(reached, "")
            reached += [place for place in inside if place not in reached]
        return reached


def _next(place: _Place, segment: str) -> _Place:
    """Return the place after ``segment``, made if need be."""
    if segment == "**":
        if place.deep is None:
            place.deep = _Place(repeats=True)
        return place.deep
    if segment == "*":
        if place.any is None:
            place.any = _Place()
        return place.any
    if "*" not in segment:
        return place.literal.setdefault(segment, _Place())
    for glob, following in place.globs:
        if glob.text == segment:
            return following
    following = _Place()
    place.globs.append((_Glob(segment), following))
    return following


def _step(places: list[_Place], segment: str) -> list[_Place]:
    """Return the places reached from ``places`` over one segment."""
    reached: list[_Place] = []
    for place in places:
        if place.repeats:
            reached.append(place)
        following = place.literal.get(segment)
        if following is not None:
            reached.append(following)
        if place.any is not None:
            reached.append(place.any)
        for glob, following in place.globs:
            if glob.matches(segment):
                reached.append(following)
    return _with_deep(reached)


def _with_deep(places: list[_Place]) -> list[_Place]:
    """Add what ``**`` reaches over no segment at all. ``places`` is extended while it is read."""
    seen = set(map(id, places))
    for place in places:
        deep = place.deep
        if deep is not None and id(deep) not in seen:
            seen.add(id(deep))
            places.append(deep)
    return places
