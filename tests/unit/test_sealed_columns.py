"""The table of sealed columns: whatever is sealed with data keys is in it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from secrethub.storage.sealed_columns import COLUMNS, FIELDS

ROOT = Path(__file__).resolve().parents[2]
OTHER_KEYS = {
    ("cluster", "wrapped_keyring"),
    ("cluster", "wrapped_notary"),
    ("kv_secrets", "path"),
    ("seal_slots", "wrapped_root"),
    ("tokens", "batch"),
}
"""What is sealed with the root key or with keys derived for one token, or given out and not kept (pages)."""
OF_THE_TABLE_ITSELF = "secrethub/storage/sealed_columns.py"


def places() -> set[tuple[str, str]]:
    """Table and column of every place that is named anywhere."""
    found = set()
    for path in sorted((ROOT / "secrethub").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name == OF_THE_TABLE_ITSELF:
            continue
        module: Any = None
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                not isinstance(node, ast.Call)
                or not isinstance(node.func, ast.Name)
                or node.func.id != "Place"
            ):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if {"table", "column"} <= set(given):
                module = module or importlib.import_module(name.removesuffix(".py").replace("/", "."))
                values = [eval(ast.unparse(given[part]), vars(module)) for part in ("table", "column")]
                found.add((values[0], values[1]))
    return found


def test_every_place_of_a_sealed_value_is_in_the_table() -> None:
    """What is sealed with data keys anywhere is sealed anew after a rotation: none is forgotten."""
    assert places() - OTHER_KEYS == set(COLUMNS)


def test_every_column_has_an_index() -> None:
    """What is left in a column is found by an index, not by reading all of it."""
    text = (ROOT / "secrethub/storage/migrations/versions/0002_functions.py").read_text("utf-8")
    for field in FIELDS:
        assert f'("{field.table.name}", "{field.name}")' in text
