"""Policies in HCL: read as Vault reads them, and the same as their JSON form."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.policy.capabilities import names
from secrethub.policy.document import parse_policy
from secrethub.policy.hcl import load_hcl

EXAMPLE = """
# read the application's secrets
path "secret/data/app/*" {
  capabilities = ["read", "list"]   // both
}

/* and create
   below one folder */
path "secret/data/app/new" {
  capabilities = [
    "create",
    "update",
  ]
  allowed_parameters = {
    "data" = []
    "options" = [{ cas = 0 }, "x"], "*" = []
  }
  denied_parameters {
    ttl = ["0", 5, true]
  }
  required_parameters = ["data"]
  min_wrapping_ttl = "1m"
  max_wrapping_ttl = 90
}
path "auth/token/create" { policy = "write" }
"""


def test_an_example() -> None:
    """Blocks, comments, lists, objects, numbers and booleans come out as in the JSON form."""
    assert load_hcl(EXAMPLE) == {
        "path": [
            {"secret/data/app/*": {"capabilities": ["read", "list"]}},
            {
                "secret/data/app/new": {
                    "capabilities": ["create", "update"],
                    "allowed_parameters": {"data": [], "options": [{"cas": 0}, "x"], "*": []},
                    "denied_parameters": [{"ttl": ["0", 5, True]}],
                    "required_parameters": ["data"],
                    "min_wrapping_ttl": "1m",
                    "max_wrapping_ttl": 90,
                }
            },
            {"auth/token/create": {"policy": "write"}},
        ]
    }
    policy = parse_policy("app", EXAMPLE)
    assert (policy.language, policy.source) == ("acl", EXAMPLE)
    assert [(rule.path, names(rule.capabilities)) for rule in policy.acl] == [
        ("secret/data/app/*", ("read", "list")),
        ("secret/data/app/new", ("create", "update")),
        ("auth/token/create", ("create", "read", "update", "delete", "list")),
    ]
    narrowing = policy.acl[1].narrowing
    assert narrowing is not None
    assert narrowing.denied == {"ttl": ("0", 5, True)}
    assert (narrowing.min_wrapping, narrowing.max_wrapping) == (60, 90)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('a = "x\\n\\t\\"\\\\\\u00e9\\U0001f511\\x41\\101"', 'x\n\t"\\é\U0001f511AA'),
        ("a = <<END\none\n  two\nEND\n", "one\n  two\n"),
        ("a = <<-END\n    one\n      two\n    END\n", "one\n  two\n"),
        ('a = "${not.read}"', "${not.read}"),
        ("a = -12", -12),
        ("a = 0x1F", 31),
        ("a = 1.5e3", 1500.0),
        ("a = false", False),
        ("a = {}", {}),
        ("a = []", []),
        ('a = { b = { c = ["d"] } }', {"b": {"c": ["d"]}}),
        ('"a" = 1', 1),
        ("\ufeffa = 1", 1),
        ("a = 1 # end", 1),
    ],
)
def test_values(source: str, value: Any) -> None:
    """Each kind of value is read."""
    assert load_hcl(source) == {"a": value}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('path "a" {', r"expected a key, not .*the end.* at line 1"),
        ('path "a" {\n  capabilities = ["read"\n}', r"expected .,., not .}. at line 3, column 1|expected"),
        ("path", r'expected "{"'),
        ("path =", r"expected a value"),
        ("= 1", r"expected a key"),
        ("a = b", r'expected a value, not "b" at line 1, column 5'),
        ('a = "x', r"does not end on its line"),
        ('a = "\\q"', r"unknown escape"),
        ('a = "\\ud800"', r"escape of no character"),
        ("a = <<E\nx\n", r"heredoc without its end"),
        ("a = 1\na = 2", r'"a" stands twice in one object at line 2, column 1'),
        ('a "x" {}\na = 2', r"stands twice"),
        ('a = 2\na "x" {}', r"stands twice"),
        ("a = 1z", r"not a number"),
        ("a = " + "9" * 50, r"not a number"),
        ("a = " + "[" * 1000, r"nested too deeply"),
        ("a = " + "{ a = " * 1000, r"nested too deeply"),
        ("a " + '"b" ' * 1000 + "{}", r"too many labels"),
        ("/* never closed", r"unexpected character"),
        ("a = 1 \x00", r"unexpected character"),
        ("x" * 262_145, r"longer than 262144"),
    ],
)
def test_what_is_no_hcl(source: str, says: str) -> None:
    """What is not understood is refused with line and column, in printable words."""
    with pytest.raises(InvalidRequest, match=says) as caught:
        load_hcl(source)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def written(value: Any) -> str:
    """Return a value in HCL."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{written(k)} = {written(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" if not c.isalnum() else c for c in value) + '"'
    return json.dumps(value)


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
def test_what_is_written_is_read(document: dict[str, Any]) -> None:
    """Every document that JSON can say is read from HCL as it is."""
    source = "\n".join(f"{written(name)} = {written(value)}" for name, value in document.items())
    assert load_hcl(source) == document


@given(st.text(st.sampled_from('path"ab{}[]=,# /*\n\\<-E1.x'), max_size=60))
def test_any_text_is_read_or_refused(source: str) -> None:
    """No text is more than refused."""
    with contextlib.suppress(InvalidRequest):
        json.dumps(load_hcl(source))
