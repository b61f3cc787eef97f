"""Damaged policies: refused or read strictly, never more; both forms of one document decide alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.policy.capabilities import BITS, Capability
from secrethub.policy.conditions import Circumstances
from secrethub.policy.decision import Allowed, Question, compile_policies, decide
from secrethub.policy.document import ParsedPolicy, parse_policy
from secrethub.policy.hcl import load_hcl

NATIVE = json.dumps(
    {
        "version": "1",
        "statements": [
            {"effect": "allow", "paths": ["secrets/app/**", "kv/*/db"], "capabilities": ["read", "list"]},
            {
                "effect": "deny",
                "paths": ["secrets/app/root/{{agent.id}}"],
                "capabilities": ["*"],
                "conditions": {
                    "source_ip": ["10.0.0.0/8"],
                    "time": {"from": "22:00", "until": "06:00", "zone": "Europe/Berlin"},
                    "weekdays": ["mon"],
                    "dates": {"from": "2026-01-01"},
                    "max_ttl": "1h",
                    "wrapping": True,
                },
            },
        ],
    },
    indent=1,
)
ACL = json.dumps(
    {
        "path": {
            "secret/data/app/*": {
                "capabilities": ["read", "update"],
                "allowed_parameters": {"ttl": ["1h"], "*": []},
                "min_wrapping_ttl": "10s",
            },
            "secret/+/app/root": {"policy": "deny"},
        }
    },
    indent=1,
)
HCL = """# who may read
path "secret/data/app/*" {
  capabilities = ["read", "update"]
  denied_parameters = { "x" = [1, true, "a*"], y = [] }
  max_wrapping_ttl = "1h"
}
path "secret/metadata/app/" { policy = "read" } // old
path "sys/+/a" {
  capabilities = [ "sudo", "deny", ]
  comment = <<EOT
text
EOT
}
"""
PATHS = ("secrets/app/db", "secret/data/app/db", "secret/metadata/app", "kv/a/db", "sys/mounts/a", "x", "")
WHEN = Circumstances(now=datetime(2030, 1, 1, tzinfo=UTC))

DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["delete", "insert", "replace", "repeat", "swap"]),
        st.integers(0, 10_000),
        st.integers(1, 12),
        st.text(
            st.sampled_from('{}[]",:=*+/\\ \n#\x00é\u202e0129trufalsenulpathcapabilitiesdeny'), max_size=8
        ),
    ),
    min_size=1,
    max_size=4,
)


def damaged(text: str, damage: list[tuple[str, int, int, str]]) -> str:
    """Return a text with pieces deleted, inserted, replaced, repeated and moved."""
    for kind, place, length, other in damage:
        at = place % (len(text) + 1)
        piece = text[at : at + length]
        rest = text[at + length :]
        text = {
            "delete": text[:at] + rest,
            "insert": text[:at] + other + piece + rest,
            "replace": text[:at] + other + rest,
            "repeat": text[:at] + piece * 3 + rest,
            "swap": text[:at] + rest[:length] + piece + rest[length:],
        }[kind]
    return text


def read(source: str | dict[str, Any]) -> ParsedPolicy | None:
    """Return a policy, or None where it is refused in printable words."""
    try:
        return parse_policy("p", source)
    except InvalidRequest as exc:
        message = exc.message
    assert message.isprintable()
    assert len(message) < 1000
    return None


def verdicts(policy: ParsedPolicy) -> list[bool]:
    """Return what a policy alone decides about every path and capability."""
    compiled = compile_policies([policy])
    found = []
    for path in PATHS:
        for capability in BITS:
            question = Question(
                path=path,
                acl_capability=capability,  # type: ignore[arg-type]
                native_path=path,
                native_capability=capability,  # type: ignore[arg-type]
                when=WHEN,
            )
            verdict = decide(question, compiled)
            assert len(verdict.trace) <= 50
            found.append(isinstance(verdict, Allowed))
    return found


@given(st.sampled_from([NATIVE, ACL, HCL]), DAMAGE)
def test_a_damaged_policy(source: str, damage: list[tuple[str, int, int, str]]) -> None:
    """A damaged text is refused, or is a policy that decides, and reading it again decides the same."""
    policy = read(damaged(source, damage))
    if policy is None:
        return
    assert policy.source == damaged(source, damage)
    first = verdicts(policy)
    again = read(policy.source)
    assert again is not None
    assert verdicts(again) == first
    # What the decoded document says is what the text says.
    decoded = read(json.loads(json.dumps(policy.document)))
    if decoded is not None:
        assert verdicts(decoded) == first


@given(DAMAGE)
def test_hcl_and_its_json_form_are_one(damage: list[tuple[str, int, int, str]]) -> None:
    """Whatever HCL reads as, its JSON form is taken or refused alike, and decides the same."""
    source = damaged(HCL, damage)
    if source.lstrip().startswith("{"):
        return
    try:
        document = load_hcl(source)
    except InvalidRequest:
        assert read(source) is None
        return
    by_text, by_form = read(source), read(json.loads(json.dumps(document)))
    if by_text is None:
        assert by_form is None
    elif by_form is not None:
        assert verdicts(by_form) == verdicts(by_text)


@given(DAMAGE, st.sampled_from(PATHS), st.sampled_from(sorted(BITS)))
def test_nothing_is_allowed_that_is_not_written(
    damage: list[tuple[str, int, int, str]], path: str, capability: Capability
) -> None:
    """What a damaged native policy allows is in a statement of it that allows and names that capability."""
    policy = read(damaged(NATIVE, damage))
    if policy is None or policy.language != "native":
        return
    question = Question(
        path=path, acl_capability=capability, native_path=path, native_capability=capability, when=WHEN
    )
    if not isinstance(decide(question, compile_policies([policy])), Allowed):
        return
    written = json.loads(policy.source)["statements"]
    assert any(
        one["effect"] == "allow"
        and {capability, "*"} & set(one["capabilities"])
        and any(pattern.split("*")[0].rstrip("/") in path for pattern in one["paths"])
        for one in written
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "source_ip",
                        "time",
                        "from",
                        "until",
                        "zone",
                        "weekdays",
                        "dates",
                        "max_ttl",
                        "wrapping",
                        "x",
                    ]
                ),
                x,
                max_size=4,
            )
        ),
        max_leaves=10,
    )
)
def test_any_conditions(value: Any) -> None:
    """Any JSON as conditions is refused or decides; what is not known never allows and always denies."""
    for effect in ("allow", "deny"):
        statement = {"effect": effect, "paths": ["a"], "capabilities": ["read"], "conditions": value}
        everything = {"effect": "allow", "paths": ["**"], "capabilities": ["*"]}
        policy = read(
            {"version": "1", "statements": [statement, *([everything] if effect == "deny" else [])]}
        )
        if policy is None:
            continue
        question = Question(path="-", acl_capability="read", native_path="a", native_capability="read")
        assert not isinstance(decide(question, compile_policies([policy])), Allowed)
