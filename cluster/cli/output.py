"""Printing answers: tables for people, JSON and YAML for programs.

Tables never cut or fold a value, and show control characters escaped, so that a name stored by one
person cannot move another person's cursor.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from cluster.cli.yaml_text import to_yaml

Format = Literal["table", "json", "yaml"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows under column names."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def fields(data: Mapping[str, Any], key: str = "Key", value: str = "Value") -> Table:
    """A table with one row for each field of ``data``."""
    return Table(columns=(key, value), rows=tuple((name, text(item)) for name, item in data.items()))


def names(items: Sequence[str], column: str = "Name") -> Table:
    """A table with one column."""
    return Table(columns=(column,), rows=tuple((item,) for item in items))


def text(value: Any) -> str:
    """Show one value in a table's cell."""
    match value:
        case str():
            return value
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case [*items] if all(isinstance(item, str) for item in items):
            return ", ".join(items) or "-"
        case dict() | list() | tuple():
            return json.dumps(value, ensure_ascii=False) if value else "-"
        case _:
            return str(value)


def render(data: Any, format_: Format, tables: Sequence[Table] = ()) -> str:
    """Return ``data`` as it is printed in ``format_``, without the last line's end."""
    if format_ == "json":
        return json.dumps(data, ensure_ascii=False, indent=2)
    if format_ == "yaml":
        return to_yaml(data).rstrip("\n")
    shown = tables or ((fields(data),) if isinstance(data, Mapping) else (names(data),))
    return "\n\n".join(_draw(table) for table in shown)


def visible(value: str) -> str:
    """Escape control characters (and what reorders text) as Python would write them."""
    if value.isprintable():
        return value
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in value)


def _draw(table: Table) -> str:
    rows = [tuple(visible(cell) for cell in row) for row in table.rows]
    widths = [max(map(_width, column)) for column in zip(table.columns, *rows, strict=True)]
    head = [_pad(name, width) for name, width in zip(table.columns, widths, strict=True)]
    rule = ["-" * _width(name) for name in table.columns]
    lines = ["  ".join(head), "  ".join(_pad(dash, width) for dash, width in zip(rule, widths, strict=True))]
    lines += ["  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines = [line.rstrip() for line in lines]
    if sys.stdout.isatty():
        lines[:2] = [click.style(lines[0], bold=True), click.style(lines[1], dim=True)]
    return "\n".join(lines)


def _pad(cell: str, width: int) -> str:
    return cell + " " * (width - _width(cell))


def _width(cell: str) -> int:
    if cell.isascii():
        return len(cell)
    from rich.cells import cell_len

    return cell_len(cell)
