"""The catalogue of templates: every one makes what it says, and values stay data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.policy.document import parse_policy
from secrethub.policy.templates import TEMPLATES, render

GIVEN: dict[str, dict[str, Any]] = {
    "read-only": {"paths": ["secrets/web/**", "secrets/shared"]},
    "business-hours": {"paths": "secrets/web/**", "zone": "Europe/Berlin", "weekdays": ["mon", "sat"]},
    "network-restricted": {"paths": "secrets/web/**", "networks": ["10.0.0.0/8", "fd00::/8"]},
    "time-limited": {"paths": "secrets/web/**", "until": "2030-12-31"},
    "emergency": {"paths": "secrets/**", "until": "2030-12-31", "networks": "10.0.0.0/8"},
    "per-agent": {"prefix": "secrets/agents", "by": "name", "capabilities": "read"},
}


def test_all_are_known() -> None:
    """The examples here are about every template there is."""
    assert set(GIVEN) == set(TEMPLATES)


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        (
            "read-only",
            {"paths": ["secrets/web/**", "secrets/shared"], "capabilities": ["read", "list"]},
        ),
        (
            "business-hours",
            {
                "paths": ["secrets/web/**"],
                "capabilities": ["read", "list"],
                "conditions": {
                    "time": {"from": "08:00", "until": "18:00", "zone": "Europe/Berlin"},
                    "weekdays": ["mon", "sat"],
                },
            },
        ),
        (
            "network-restricted",
            {
                "paths": ["secrets/web/**"],
                "capabilities": ["read", "list"],
                "conditions": {"source_ip": ["10.0.0.0/8", "fd00::/8"]},
            },
        ),
        (
            "time-limited",
            {
                "paths": ["secrets/web/**"],
                "capabilities": ["read", "list"],
                "conditions": {"dates": {"until": "2030-12-31"}},
            },
        ),
        (
            "emergency",
            {
                "paths": ["secrets/**"],
                "capabilities": ["create", "read", "update", "patch", "list"],
                "conditions": {
                    "dates": {"until": "2030-12-31"},
                    "source_ip": ["10.0.0.0/8"],
                    "max_ttl": "1h",
                },
            },
        ),
        ("per-agent", {"paths": ["secrets/agents/{{agent.name}}/**"], "capabilities": ["read"]}),
    ],
)
def test_what_it_makes(name: str, statement: dict[str, Any]) -> None:
    """A template makes one statement that allows, with exactly what was given."""
    document = render(TEMPLATES[name], GIVEN[name])
    assert document == {"version": "1", "statements": [{"effect": "allow", **statement}]}
    assert parse_policy("p", json.dumps(document)).language == "native"


@pytest.mark.parametrize(
    ("name", "wrong", "part"),
    [
        ("read-only", {"capabilities": "sudo"}, "unknown parameter"),
        ("read-only", {"paths": None}, "missing"),
        ("read-only", {"paths": []}, "1 to 256"),
        ("read-only", {"paths": ["secrets/a"] * 257}, "1 to 256"),
        ("read-only", {"paths": ""}, "texts"),
        ("read-only", {"paths": [1]}, "texts"),
        ("read-only", {"paths": "secrets/{{agent.id}}"}, "placeholders"),
        ("read-only", {"paths": "secret/data/a"}, "secrets/"),
        ("business-hours", {"from": ["08:00"]}, "one text"),
        ("business-hours", {"from": "25:00"}, "time of day"),
        ("business-hours", {"zone": "../../etc/passwd"}, "time zone"),
        ("business-hours", {"weekdays": "someday"}, "someday"),
        ("network-restricted", {"networks": None}, "missing"),
        ("network-restricted", {"networks": "10.0.0.1/8"}, "network"),
        ("time-limited", {"until": None}, "missing"),
        ("time-limited", {"until": "soon"}, "date"),
        ("emergency", {"max_ttl": "0"}, "no time"),
        ("emergency", {"until": None}, "missing"),
        ("per-agent", {"prefix": "secrets/*"}, "wildcards"),
        ("per-agent", {"prefix": "secrets/"}, "empty segment"),
        ("per-agent", {"by": "role"}, "id or name"),
        ("per-agent", {"prefix": "secrets/a/../b"}, "segment"),
    ],
)
def test_what_it_refuses(name: str, wrong: dict[str, Any], part: str) -> None:
    """A value that its field does not take, a missing one and an unknown one are refused."""
    with pytest.raises(InvalidRequest, match=part):
        render(TEMPLATES[name], {**GIVEN[name], **wrong})


def test_quotes_end_nothing() -> None:
    """A value with the syntax of JSON in it is one path like any other."""
    value = 'secrets/a"], "capabilities": ["*'
    (statement,) = render(TEMPLATES["read-only"], {"paths": value})["statements"]
    assert statement == {"effect": "allow", "paths": [value], "capabilities": ["read", "list"]}


@given(st.sampled_from(sorted(TEMPLATES)), st.data())
def test_values_are_data(name: str, data: st.DataObject) -> None:
    """Whatever text is given, the document is refused or says nothing but that text in its field."""
    parameters = {one.name for one in TEMPLATES[name].parameters}
    field = data.draw(st.sampled_from(sorted(parameters)))
    text = data.draw(st.text(max_size=40))
    try:
        document = render(TEMPLATES[name], {**GIVEN[name], field: text})
    except InvalidRequest:
        return
    usual = render(TEMPLATES[name], GIVEN[name])
    assert len(document["statements"]) == 1
    assert document["statements"][0]["effect"] == "allow"
    assert _shape(document) >= _shape(usual) - {f"$.statements.conditions.dates.{field}"}
    assert json.loads(json.dumps(document)) == document


def _shape(value: Any, place: str = "$") -> set[str]:
    """Return the places of all fields of objects in a document."""
    if isinstance(value, dict):
        found = {f"{place}.{name}" for name in value}
        for name, one in value.items():
            found |= _shape(one, f"{place}.{name}")
        return found
    if isinstance(value, list):
        return set().union(*(_shape(one, place) for one in value)) if value else set()
    return set()
