"""Operations are found by the first segment of a path, and none is missed by that."""

from __future__ import annotations

import re

import pytest

from secrethub.engines.kinds import engines
from secrethub.engines.patterns import PatternTable, compile_pattern

ENGINES = engines()


def _paths(pattern: str) -> set[str]:
    """Return paths that a pattern may be asked for with, and some that are nearly that."""
    filled = {re.sub(r"\{[a-z_]+[*?]?\}", text, pattern) for text in ("a", "a/b", "", "config", "roles/x")}
    return filled | {f"{path}/" for path in filled} | {f"x{path}" for path in filled} | {"", "/", pattern}


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_the_same_operations_are_found_as_by_trying_all(kind: str) -> None:
    """Whatever path is asked for, those whose pattern it has are found, in the order of their declaration."""
    operations = ENGINES[kind].operations()
    table = PatternTable(operations)
    assert table.operations == tuple(operations)
    for path in {path for operation in operations for path in _paths(operation.pattern)}:
        tried = [one for one in operations if compile_pattern(one.pattern).fullmatch(path)]
        assert [operation for operation, _ in table.matching(path)] == tried, path
