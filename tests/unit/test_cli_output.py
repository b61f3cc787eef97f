"""What the command line prints: tables for people, JSON and YAML for programs, errors in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli.failures import explain
from cluster.cli.output import Table, fields, render, text, visible
from cluster.cli.yaml_text import to_yaml
from secrethub.client import ApiError, ClientError, NotReached, NotTrusted

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_a_table_is_aligned_and_never_cuts_a_value() -> None:
    """Columns are as wide as their widest cell, however wide that is, also with wide characters."""
    drawn = render({}, "table", [Table(columns=("Key", "Value"), rows=(("鍵", "x" * 500), ("abc", "y")))])
    lines = drawn.splitlines()
    assert lines[0] == "Key  Value"
    assert lines[1] == "---  -----"
    assert lines[2] == "鍵   " + "x" * 500
    assert lines[3] == "abc  y"


def test_control_characters_are_shown_and_not_obeyed() -> None:
    """Escape sequences and direction marks stored in a name reach the terminal as text."""
    drawn = render({"name\x1b[2J": "a\u202eb\nc"}, "table")
    assert "\x1b" not in drawn
    assert "\u202e" not in drawn
    assert "\\x1b[2J" in drawn
    assert "a\\u202eb\\nc" in drawn
    assert visible("Grüße 鍵") == "Grüße 鍵"


def test_cells_show_each_json_type() -> None:
    """Lists of names are joined, missing values are a dash, the rest is JSON."""
    assert [text(value) for value in ("a", None, True, 3, ["a", "b"], [], {}, {"k": 1}, [1])] == [
        "a", "-", "true", "3", "a, b", "-", "-", '{"k": 1}', "[1]",
    ]  # fmt: skip


def test_several_tables_stand_apart() -> None:
    """An empty line stands between tables."""
    assert render({}, "table", [fields({"a": 1}), fields({"b": 2})]).count("\n\n") == 1


def test_json_is_the_data_itself() -> None:
    """Programs get the answer's data, not the table."""
    data = {"data": {"k": "ü"}, "n": [1, None]}
    assert json.loads(render(data, "json", [fields({"other": 1})])) == data
    assert yaml.safe_load(render(data, "yaml")) == data


@given(JSON_VALUES)
def test_yaml_reads_back_as_written(data: Any) -> None:
    """Any JSON data written as YAML is read by another implementation as the same data."""
    assert yaml.safe_load(to_yaml(data)) == data


@pytest.mark.parametrize(
    "word", ["yes", "No", "null", "1.5", "0x1f", "2026-01-01", "", " a", "a: b", "- a", "#a", "~"]
)
def test_yaml_quotes_what_would_be_read_as_something_else(word: str) -> None:
    """Strings that look like other types stay strings."""
    assert yaml.safe_load(to_yaml({word: [word]})) == {word: [word]}


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            ApiError(403, "permission_denied", ("permission denied",), "r-1"),
            ["permission denied", "token lookup", "r-1"],
        ),
        (ApiError(503, "sealed", ("Vault is sealed",)), ["sealed", "secrethub operator unseal"]),
        (ApiError(404, "", ()), ["not found", "name or path"]),
        (ApiError(400, "invalid_request", ("first\nsecond",)), ["first second"]),
        (NotReached("http://127.0.0.1:1: Connection refused"), ["Connection refused", "SECRETHUB_ADDR"]),
        (NotReached("https://c:1: no answer in time", True), ["in time. A change may have been made"]),
        (NotReached("http://c:1: closed; does it speak https://?"), ["does it speak https://? Is the"]),
        (NotTrusted("https://c:1: certificate not trusted"), ["--ca-file", "--ca-sha256"]),
    ],
)
def test_errors_say_what_happened_and_what_to_do_in_one_line(error: ClientError, parts: list[str]) -> None:
    """Each error is one line with the reason, the next step and the request's id where there is one."""
    line = explain(error)
    assert "\n" not in line
    for part in parts:
        assert part in line
