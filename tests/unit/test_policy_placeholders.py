"""Placeholders: values are data, and no value widens a rule."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.policy.decision import Allowed, Question, compile_policies, decide
from secrethub.policy.document import parse_policy

ID = "6f1c0c1e-0000-4000-8000-000000000001"


def document(path: str, effect: str = "allow") -> dict[str, Any]:
    return {"version": "1", "statements": [{"effect": effect, "paths": [path], "capabilities": ["read"]}]}


def may(path: str, *documents: dict[str, Any], **values: str) -> bool:
    """Tell whether ``path`` may be read by an agent with these values, or by nobody special."""
    parsed = [parse_policy(f"p{number}", one) for number, one in enumerate(documents)]
    question = Question(path=path, acl_capability="read", native_path=path, native_capability="read")
    named = {f"agent.{name}": value for name, value in values.items()}
    return isinstance(decide(question, compile_policies(parsed, values=named)), Allowed)


def test_each_agent_its_own() -> None:
    """An agent reaches the path with its value, no other path, and who is no agent reaches none."""
    own = document("secrets/agents/{{agent.id}}/**")
    assert may(f"secrets/agents/{ID}/db", own, id=ID)
    assert may(f"secrets/agents/{ID}", own, id=ID)
    assert not may("secrets/agents/other/db", own, id=ID)
    assert not may("secrets/agents/{{agent.id}}/db", own, id=ID)
    for missing in ({}, {"name": "web"}):
        assert not may(f"secrets/agents/{ID}/db", own, **missing)
        assert not may("secrets/agents/{{agent.id}}/db", own, **missing)
    both = document("secrets/a/{{agent.name}}-{{agent.id}}")
    assert may(f"secrets/a/web-{ID}", both, id=ID, name="web")


def test_a_denial_for_somebody_unknown() -> None:
    """A denial whose value is not known denies any value, in that one segment."""
    everything = document("secrets/**")
    for path, denied in (
        ("secrets/{{agent.id}}/root", ("secrets/a/root", f"secrets/{ID}/root")),
        ("secrets/x-{{agent.name}}", ("secrets/x-", "secrets/x-web")),
        ("secrets/{{agent.id}}{{agent.name}}/root", ("secrets/a/root",)),
    ):
        deny = document(path, "deny")
        for one in denied:
            assert not may(one, everything, deny)
        assert may("secrets/a/b/root", everything, deny)
        assert may("secrets/web", everything, deny)
    deny = document("secrets/{{agent.name}}", "deny")
    assert not may("secrets/web", everything, deny, name="web")
    assert may("secrets/other", everything, deny, name="web")


@given(st.text(alphabet=string.printable + "*+/{}.äø\u202e", max_size=12))
def test_no_value_widens_a_rule(value: str) -> None:
    """Whatever a name is, it reaches at most the one folder that is called exactly so."""
    own = document("secrets/agents/{{agent.name}}/*")
    deny = document("secrets/agents/{{agent.name}}/*", "deny")
    for path in ("secrets/agents/victim/db", "secrets/agents/db", "secrets/agents/a/b/c", "secrets/x"):
        assert may(path, own, name=value) is (value == "victim" and path.startswith("secrets/agents/victim"))
    if value != "victim":
        # A value that is no value is not known, and then nothing slips past a denial.
        reached = may("secrets/agents/victim/db", document("secrets/**"), deny, name=value)
        assert reached is (
            bool(value)
            and set(value) <= set(string.ascii_letters + string.digits + "_.-")
            and value not in {".", ".."}
        )


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("secrets/{{identity.entity.id}}", "unknown placeholder"),
        ("secrets/{{agent.id }}", "unknown placeholder"),
        ("secrets/{{agent.role}}", "unknown placeholder"),
        ("secrets/{{}}", "unknown placeholder"),
        ("secrets/{{agent.id", "stand around"),
        ("secrets/agent.id}}", "stand around"),
        ("secrets/{{agent/id}}", "stand around"),
        ("secrets/{{{agent.id}}}", "stand around"),
        ("{{agent.name}}/x", "first segment"),
        ("x-{{agent.name}}/x", "first segment"),
        ("secrets/{{agent.name}}*", "wildcard"),
        ("secrets/*{{agent.id}}", "wildcard"),
    ],
)
def test_where_none_may_be(path: str, part: str) -> None:
    """A placeholder that is not known, or could choose more than a name, is refused at writing."""
    for effect in ("allow", "deny"):
        with pytest.raises(InvalidRequest, match=part) as caught:
            parse_policy("p", document(path, effect))
        assert caught.value.message.startswith("$.statements[0].paths[0]")


def test_names_of_policies_by_placeholder() -> None:
    """A value in the path of a policy has no case, as such paths have none."""
    own = document("sys/policies/acl/{{agent.name}}")
    assert may("sys/policies/acl/web", own, name="WEB")
