"""What clients of Vault can call is called in the tests, or said not to be there."""

from __future__ import annotations

import ast
import gc
import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

import hvac

from tests.conventions.project import ROOT, modules

_GUIDE = ROOT / "docs" / "vault.md"
_AREA = re.compile(r"\.(sys|auth\.\w+|secrets\.(?:kv\.v[12]|\w+))$")
_LISTED = re.compile(r"`((?:sys|auth|secrets)\.[\w.*]+)`")


def test_every_method_of_hvac_is_called_or_said_not_to_be_there() -> None:
    """A method that no test calls is in the guide's list, and what is in that list is called by no test."""
    offered, called = set(_offered()), set(_called())
    listed = set(_LISTED.findall(_GUIDE.read_text("utf-8")))
    missing = {name for name in offered if any(fnmatchcase(name, pattern) for pattern in listed)}
    assert sorted(offered - called - missing) == []
    assert sorted(missing & called) == []
    assert [pattern for pattern in sorted(listed) if not any(fnmatchcase(n, pattern) for n in missing)] == []


def _offered() -> Iterator[str]:
    """The names of all public methods, like ``sys.seal`` and ``secrets.kv.v2.patch``."""
    client = hvac.Client(url="http://127.0.0.1:1")
    yield from _methods("client", client)
    yield from _methods("sys", client.sys)
    for category in ("auth", "secrets"):
        for name in getattr(client, category).implemented_class_names:
            api = getattr(getattr(client, category), name)
            if name == "kv":
                yield from _methods("secrets.kv.v1", api.v1)
                yield from _methods("secrets.kv.v2", api.v2)
            else:
                yield from _methods(f"{category}.{name}", api)


def _methods(area: str, api: object) -> Iterator[str]:
    for name, _ in inspect.getmembers(type(api), inspect.isfunction):
        if not name.startswith("_") and name != "get_private_attr_name":
            yield f"{area}.{name}"


def _called() -> Iterator[str]:
    """The names of the methods that tests call, also by names that a test gives to parts of hvac."""
    # What earlier tests left is told of when it is collected: a traceback is then shown by way of ``ast``,
    # which must not happen while ``ast`` works.
    gc.collect()
    for path in modules("tests"):
        tree = ast.parse(path.read_text("utf-8"))
        if not any(isinstance(node, ast.Import) and node.names[0].name == "hvac" for node in tree.body):
            continue
        for function in tree.body:
            short = dict(_short_names(function))
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute):
                    whole = ast.unparse(node.value)
                    area = short.get(whole) or _area(whole)
                    if area:
                        yield f"{area}.{node.attr}"


def _short_names(function: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.annotation and ast.unparse(node.annotation) == "hvac.Client":
            yield node.arg, "client"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "hvac.Client":
                yield node.targets[0].id, "client"
            elif area := _area(ast.unparse(node.value)):
                yield node.targets[0].id, area


def _area(whole: str) -> str:
    found = _AREA.search(whole)
    return found[1] if found else ""
