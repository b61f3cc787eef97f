"""Operations declare which query parameters they read: what is not declared is in no document."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from secrethub.engines.engine import Operation
from secrethub.engines.kinds import engines

OPERATIONS = [operation for engine in engines().values() for operation in engine.operations()]
READS = re.compile(r'\bquery(?:\.get\(|\[)"(\w+)"')


def reached(handler: Any) -> Iterator[Any]:
    """Yield a handler and the functions of engines that it, and those, call by their names."""
    found, left = set(), [handler]
    while left:
        function = left.pop()
        while isinstance(function, functools.partial):
            left += [given for given in function.args if callable(given)]
            function = function.func
        function = getattr(function, "__func__", function)
        if not inspect.isfunction(function) or function in found:
            continue
        if not function.__module__.startswith("secrethub.engines"):
            continue
        found.add(function)
        yield function
        left += [function.__globals__.get(name) for name in function.__code__.co_names]
        left += [cell.cell_contents for cell in function.__closure__ or ()]


def read_by(operation: Operation) -> set[str]:
    """Return the query parameters that an operation reads."""
    return {
        name for function in reached(operation.handler) for name in READS.findall(inspect.getsource(function))
    }


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.name}-{one.method}-{one.pattern}")
def test_what_is_read_is_declared(operation: Operation) -> None:
    """No operation reads a query parameter that it does not declare."""
    assert read_by(operation) <= set(operation.query)


def test_the_search_finds_them() -> None:
    """Parameters that are read in a function of another module are found, too."""
    found = {operation.name: read_by(operation) for operation in OPERATIONS}
    assert found["kv.read"] == {"version"}
    assert found["cert.role.list"] == {"limit", "after"}
    assert found["sys.health"] == {"activecode", "sealedcode", "uninitcode"}
