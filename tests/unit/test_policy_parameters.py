"""Parameters and wrapping times of Vault's rules, one rule alone and several policies united."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from secrethub.policy.capabilities import Capability
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, Question, compile_policies, decide
from secrethub.policy.document import parse_policy


def allowed(
    rules: list[dict[str, Any]],
    parameters: dict[str, Any] | None,
    capability: Capability = "update",
    wrap_ttl: int = 0,
) -> bool:
    """Tell whether policies, each with one rule for the same path, allow a request."""
    every: dict[str, Any] = {"capabilities": ["create", "read", "update", "delete", "list"]}
    parsed = [parse_policy(f"p{n}", {"path": {"kv/a": every | rule}}) for n, rule in enumerate(rules)]
    when = Circumstances(
        now=datetime(2026, 1, 1, tzinfo=UTC), wrap_ttl=wrap_ttl, parameters=lambda: parameters
    )
    question = Question(
        path="kv/a",
        acl_capability=capability,
        native_path="kv/a",
        native_capability=capability,
        when=when,
    )
    return isinstance(decide(question, compile_policies(parsed)), Allowed)


@pytest.mark.parametrize(
    ("rule", "parameters", "expected"),
    [
        ({"allowed_parameters": {"a": []}}, {"a": 1}, True),
        ({"allowed_parameters": {"a": []}}, {"A": 1}, True),
        ({"allowed_parameters": {"a": []}}, {"a": 1, "b": 1}, False),
        ({"allowed_parameters": {"a": []}}, {}, True),
        ({"allowed_parameters": {"a": []}}, None, False),
        ({"allowed_parameters": {"a": ["x", 5]}}, {"a": "x"}, True),
        ({"allowed_parameters": {"a": ["x", 5]}}, {"a": 5}, True),
        ({"allowed_parameters": {"a": ["x", 5]}}, {"a": "5"}, False),
        ({"allowed_parameters": {"a": [True]}}, {"a": 1}, False),
        ({"allowed_parameters": {"a": ["pre*"]}}, {"a": "prefix"}, True),
        ({"allowed_parameters": {"a": ["*fix"]}}, {"a": "prefix"}, True),
        ({"allowed_parameters": {"a": ["*ef*"]}}, {"a": "prefix"}, True),
        ({"allowed_parameters": {"a": ["**"]}}, {"a": "anything"}, True),
        ({"allowed_parameters": {"a": ["*"]}}, {"a": "anything"}, False),
        ({"allowed_parameters": {"a": ["*"]}}, {"a": "*"}, True),
        ({"allowed_parameters": {"a": [""]}}, {"a": "anything"}, False),
        ({"allowed_parameters": {"a": ["x"]}}, {"a": "y", "A": "x"}, False),
        ({"allowed_parameters": {"a": ["x"]}}, {"A": "x", "a": "y"}, False),
        ({"allowed_parameters": {"a": ["pre*"]}}, {"a": "other"}, False),
        ({"allowed_parameters": {"*": []}}, {"a": 1, "b": 2}, True),
        ({"allowed_parameters": {"a": ["x"], "*": []}}, {"a": "x", "b": 2}, True),
        ({"allowed_parameters": {"a": ["x"], "*": []}}, {"a": "y", "b": 2}, False),
        ({"denied_parameters": {"a": []}}, {"a": 1}, False),
        ({"denied_parameters": {"a": []}}, {"b": 1}, True),
        ({"denied_parameters": {"a": ["x"]}}, {"a": "x"}, False),
        ({"denied_parameters": {"a": ["x"]}}, {"a": "y"}, True),
        ({"denied_parameters": {"a": ["x"]}}, {"a": "x", "A": "y"}, False),
        ({"denied_parameters": {"*": []}}, {"b": 1}, False),
        ({"denied_parameters": {"*": []}}, {}, True),
        ({"denied_parameters": {"a": []}, "allowed_parameters": {"*": []}}, {"a": 1}, False),
        ({"required_parameters": ["a"]}, {"a": 1, "b": 1}, True),
        ({"required_parameters": ["A"]}, {"a": 1}, True),
        ({"required_parameters": ["a"]}, {"b": 1}, False),
        ({"required_parameters": ["a"]}, {"A": 1}, False),
        ({"required_parameters": ["a"]}, {"a": None}, False),
        ({"required_parameters": ["a"]}, {}, False),
    ],
)
def test_parameters(rule: dict[str, Any], parameters: dict[str, Any] | None, expected: bool) -> None:
    """Names, values and patterns allow, deny and require as in Vault."""
    assert allowed([rule], parameters) is expected
    assert allowed([rule], parameters, "read") is expected
    assert allowed([rule], parameters, "create") is expected
    assert allowed([rule], parameters, "delete")
    assert allowed([rule], parameters, "list")


@pytest.mark.parametrize(
    ("rules", "parameters", "expected"),
    [
        ([{"allowed_parameters": {"a": []}}, {}], {"b": 1}, False),
        ([{"allowed_parameters": {"a": []}}, {"allowed_parameters": {"b": []}}], {"a": 1, "b": 1}, True),
        ([{"allowed_parameters": {"a": ["x"]}}, {"allowed_parameters": {"a": ["y"]}}], {"a": "y"}, True),
        ([{"allowed_parameters": {"a": ["x"]}}, {"allowed_parameters": {"a": []}}], {"a": "z"}, True),
        ([{"denied_parameters": {"a": ["x"]}}, {"denied_parameters": {"a": ["y"]}}], {"a": "x"}, False),
        ([{"denied_parameters": {"a": ["x"]}}, {"denied_parameters": {"a": []}}], {"a": "z"}, False),
        ([{"required_parameters": ["a"]}, {"required_parameters": ["b"]}], {"a": 1}, False),
        ([{"required_parameters": ["a"]}, {}], {"b": 1}, False),
    ],
)
def test_united(rules: list[dict[str, Any]], parameters: dict[str, Any], expected: bool) -> None:
    """Several policies with one path are united as Vault does it, in any order."""
    assert allowed(rules, parameters) is expected
    assert allowed(rules[::-1], parameters) is expected


@pytest.mark.parametrize(
    ("rules", "good", "bad"),
    [
        ([{"min_wrapping_ttl": "1m"}], [60, 3600], [0, 59]),
        ([{"max_wrapping_ttl": "1m"}], [1, 60], [0, 61]),
        ([{"min_wrapping_ttl": 10, "max_wrapping_ttl": "20s"}], [10, 20], [0, 9, 21]),
        ([{"max_wrapping_ttl": 90}, {"max_wrapping_ttl": 60}], [60], [0, 61, 90]),
        ([{"min_wrapping_ttl": 90}, {"min_wrapping_ttl": 60}], [60, 90], [0, 59]),
        ([{"min_wrapping_ttl": 90}, {"max_wrapping_ttl": 60}], [], [0, 60, 75, 90]),
        ([{"max_wrapping_ttl": 60}, {}], [60], [0, 61]),
    ],
)
def test_wrapping(rules: list[dict[str, Any]], good: list[int], bad: list[int]) -> None:
    """A wrapped answer with a life within the bounds is demanded; of two bounds the shorter counts."""
    for order in (rules, rules[::-1]):
        assert all(allowed(order, {}, "read", life) for life in good)
        assert not any(allowed(order, {}, "read", life) for life in bad)
