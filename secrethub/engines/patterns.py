"""Path patterns of declared operations (:class:`secrethub.engines.engine.Operation`)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from secrethub.engines.engine import Operation

_Entry: TypeAlias = tuple[Operation, re.Pattern[str]]


class PatternTable:
    """Declared operations, found by the first segment of a path: engines have up to 150 patterns."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        """Compile the patterns.

        Args:
            operations: in the order in which they are tried.

        Raises:
            ValueError: a pattern uses an unknown form.
        """
        self.operations = tuple(operations)
        self._others: list[_Entry] = []
        self._by_first: dict[str, list[_Entry]] = {}
        for one in operations:
            entry, first = (one, compile_pattern(one.pattern)), _first(one.pattern)
            if "{" not in first:
                # What stood before and may begin with any text stands before it here, too.
                self._by_first.setdefault(first, list(self._others)).append(entry)
                continue
            for entries in (self._others, *self._by_first.values()):
                entries.append(entry)

    def matching(self, path: str) -> Iterator[tuple[Operation, re.Match[str]]]:
        """Return the operations with a pattern of ``path``, below the mount, in their order."""
        entries: Sequence[_Entry] = self._by_first.get(_first(path), self._others)
        for operation, pattern in entries:
            if (match := pattern.fullmatch(path)) is not None:
                yield operation, match


def _first(path: str) -> str:
    return path.partition("/")[0]


@functools.cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn an operation's path pattern into a regular expression over the canonical path.

    Raises:
        ValueError: ``pattern`` uses an unknown form.
    """
    out = []
    for piece in re.split(r"(\{[a-z_]+[*?]?\})", pattern):
        match = re.fullmatch(r"\{([a-z_]+)([*?]?)\}", piece)
        if match is None:
            if "{" in piece or "}" in piece:
                raise ValueError(f"bad pattern {pattern!r}")
            out.append(re.escape(piece))
        elif match[2] == "*":
            out.append(f"(?P<{match[1]}>.+)")
        elif match[2] == "?":
            out.append(f"(?P<{match[1]}>.*)")
        else:
            out.append(f"(?P<{match[1]}>[^/]+)")
    return re.compile("".join(out))
