"""What every module keeps to, beyond what ruff and mypy check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conventions.project import PRODUCT, ROOT, modules, shown

_CEILING = 400
_SPEAKING = ("cluster/cli/", "agent/daemon.py")
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z`'\"(])")


def test_no_module_is_too_long() -> None:
    """No module of the product or of the measurements has more than 400 lines."""
    long = {
        shown(path): lines
        for path in modules(*PRODUCT, "bench")
        if (lines := len(path.read_text("utf-8").splitlines())) > _CEILING
    }
    assert not long


def test_only_commands_print() -> None:
    """Only the two commands and the measurements call print; everything else logs or returns."""
    printing = [
        f"{shown(path)}:{node.lineno}"
        for path in modules(*PRODUCT)
        if not shown(path).startswith(_SPEAKING)
        for node in ast.walk(_parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing


def test_every_test_says_in_one_sentence_what_holds() -> None:
    """Every test's docstring begins with one whole sentence; reasons may follow it."""
    wrong = []
    for path in modules("tests"):
        for function in _tests(_parse(path)):
            first = (ast.get_docstring(function) or "").split("\n\n")[0]
            text = " ".join(first.split())
            if not text.endswith((".", "?", "!")) or _SENTENCE_END.search(text[:-1]):
                wrong.append(f"{shown(path)}:{function.lineno} {function.name}")
    assert not wrong


def test_no_test_replaces_what_is_ours() -> None:
    """Tests give other settings and arguments; nothing of a module of the product is monkeypatched."""
    replaced = []
    for path in modules("tests"):
        tree = _parse(path)
        ours = set(_imported(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "monkeypatch.setattr":
                target = ast.unparse(node.args[0]).strip("'\"").partition(".")[0]
                if target in ours or target in PRODUCT:
                    replaced.append(f"{shown(path)}:{node.lineno}")
    assert not replaced


def test_every_module_says_what_it_is_for() -> None:
    """Every module of the product and every test file begins with a docstring."""
    silent = [
        shown(path)
        for path in modules(*PRODUCT, "bench", "tests")
        if path.read_text("utf-8").strip() and ast.get_docstring(_parse(path)) is None
    ]
    assert not silent


def test_every_folder_with_modules_is_a_package() -> None:
    """Every folder of the product that holds modules is found by the build."""
    folders = {path.parent for path in modules(*PRODUCT)}
    assert not [shown(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_unit_tests_start_nothing() -> None:
    """No unit test imports Ray or starts the embedded database."""
    forbidden = {"ray", "cluster.postgres"}
    found = []
    for path in modules("tests/unit"):
        for node in ast.walk(_parse(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found += [f"{shown(path)}: {name}" for name in names if name in forbidden]
    assert not found


def test_scripts_can_be_executed() -> None:
    """The entry script and the continuous integration's script have their execute bits."""
    assert all((ROOT / name).stat().st_mode & 0o111 == 0o111 for name in ("dev", ".ci/run"))


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def _tests(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def _imported(tree: ast.AST) -> Iterator[str]:
    """Names that are bound to the product's modules, and to what is in them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PRODUCT:
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                alias.asname
                for alias in node.names
                if alias.asname and alias.name.partition(".")[0] in PRODUCT
            )
