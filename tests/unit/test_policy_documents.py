"""Policies as written: what is read, what is refused, and where the refusal points."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest
from secrethub.policy.builtin import (
    DEFAULT_POLICY_SOURCE,
    check_policy_name,
    normalise_policy_name,
    policy_names,
)
from secrethub.policy.capabilities import DENY, EVERY, names, union
from secrethub.policy.document import parse_policy

ALLOW = {"effect": "allow", "paths": ["secrets/prod/**"], "capabilities": ["read", "list"]}


def native(**changes: Any) -> dict[str, Any]:
    """Return a native document with one statement, changed."""
    return {"version": "1", "statements": [{**ALLOW, **changes}]}


def acl(path: str = "secret/data/app/*", **rule: Any) -> dict[str, Any]:
    """Return an ACL document with one rule."""
    return {"path": {path: rule or {"capabilities": ["read"]}}}


def test_native_document() -> None:
    """A native document is read into statements and keeps its source as written."""
    source = ' {"version": "1",\n "statements": [' + json.dumps(ALLOW) + "]}"
    policy = parse_policy("app", source)
    assert (policy.name, policy.language, policy.source) == ("app", "native", source)
    assert policy.document == json.loads(source)
    (statement,) = policy.statements
    assert (statement.effect, statement.paths) == ("allow", ("secrets/prod/**",))
    assert names(statement.capabilities) == ("read", "list")
    assert policy.acl == ()


def test_star_is_every_capability() -> None:
    """The capability * stands for all, sudo included."""
    policy = parse_policy("app", native(capabilities=["read", "*"]))
    assert policy.statements[0].capabilities == EVERY
    assert "sudo" in names(EVERY)


def test_decoded_documents_are_written_out() -> None:
    """A document that came decoded reads like its text, and its source is that text."""
    for document in (native(), acl()):
        policy = parse_policy("app", document)
        again = parse_policy("app", policy.source)
        assert again == policy
        assert json.loads(policy.source) == document


def test_comments_alone_are_no_rules() -> None:
    """A text of Vault's language without a rule is a policy that says nothing, as in Vault."""
    assert parse_policy("p", "# what was here is gone\n").acl == ()


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"version": "1"}, r'^\$: "statements" is missing'),
        ({"statements": []}, r'^\$: "version" is missing'),
        ({"version": 1, "statements": []}, r"^\$\.version: "),
        ({"version": "2", "statements": []}, r"^\$\.version: "),
        ({"version": "1", "statements": {}}, r"^\$\.statements: expected a list, not an object"),
        ({"version": "1", "statements": [], "extra": 1}, r"^\$\.extra: unknown key"),
        ({"version": "1", "statements": [1]}, r"^\$\.statements\[0\]: expected an object, not a number"),
        ({"version": "1", "statements": [ALLOW, {}]}, r'^\$\.statements\[1\]: "effect" is missing'),
        (native(condition={}), r"^\$\.statements\[0\]\.condition: unknown key"),
        (native(**{"e\nvil": 1}), r'^\$\.statements\[0\]\["e\\nvil"\]: unknown key'),
        (native(conditions={}), r"^\$\.statements\[0\]\.conditions: there is no condition"),
        (native(conditions={"country": ["de"]}), r"conditions\.country: unknown key"),
        (native(effect="permit"), r'^\$\.statements\[0\]\.effect: .*"permit"'),
        (native(effect=True), r"effect: expected a string, not a boolean"),
        (native(paths=[]), r"^\$\.statements\[0\]\.paths: "),
        (native(paths="secrets/a"), r"paths: expected a list, not a string"),
        (native(paths=["secrets/a", None]), r"^\$\.statements\[0\]\.paths\[1\]: expected a string, not null"),
        (native(capabilities=[]), r"^\$\.statements\[0\]\.capabilities: "),
        (
            native(capabilities=["read", "write"]),
            r'capabilities\[1\]: unknown capability "write"; known are create',
        ),
        (native(capabilities=["deny"]), r'capabilities\[0\]: .*"effect": "deny"'),
        (native(capabilities=["READ"]), r"capabilities\[0\]: unknown capability"),
        (native(capabilities=[1]), r"capabilities\[0\]: expected a string, not a number"),
        (native(paths=["secret/data/prod/*"]), r"paths\[0\]: .*write secrets/…"),
        (native(paths=["secret/metadata"]), r"write secrets/…"),
        (native(paths=["secret/**"]), r"write secrets/…"),
        (native(paths=["secret/*/prod"]), r"write secrets/…"),
        (native(paths=["secret"]), r"write secrets/…"),
        (native(paths=["/secrets/a"]), r"no leading slash"),
        (native(paths=["secrets/a/"]), r"no trailing slash"),
        (native(paths=["secrets//a"]), r"empty segment"),
        (native(paths=[""]), r"empty"),
        (native(paths=["secrets/../sys"]), r"segment '\.' or '\.\.'"),
        (native(paths=["secrets/a**"]), r"\*\* stands alone"),
        (native(paths=["secrets/***"]), r"\*\* stands alone"),
        (native(paths=["secrets/a\u202eb"]), r"control or bidirectional"),
        (native(paths=["secrets/a\nb"]), r"control or bidirectional"),
        (native(paths=["secrets/e\u0301"]), r"NFC"),
        (native(paths=["secrets/\ud800"]), r"surrogate|cannot be written"),
        (native(paths=["secrets/{{identity.entity.id}}/*"]), r"unknown placeholder"),
        (native(paths=["a" * 4097]), r"longer than 4096"),
        (native(paths=["a/" * 64 + "a"]), r"more than 64 segments"),
        (native(paths=["secrets/**/a"] * 65), r"^\$\.statements: more than 64"),
    ],
)
def test_native_refusals_name_the_place(document: dict[str, Any], place: str) -> None:
    """Everything a native document may not say is refused at its place, as text and decoded alike."""
    with pytest.raises(InvalidRequest, match=place) as caught:
        parse_policy("app", json.dumps(document))
    assert caught.value.message.isprintable()
    with pytest.raises(InvalidRequest):
        parse_policy("app", document)


@pytest.mark.parametrize(
    "path", ["secret/config", "secrets", "secrets/**", "**", "*/prod", "kv/data/a", "sys/mounts/*"]
)
def test_native_paths_beside_the_store(path: str) -> None:
    """Paths that do not name the store's inner paths are accepted."""
    assert parse_policy("app", native(paths=[path])).statements[0].paths == (path,)


def test_acl_document() -> None:
    """Vault's ACL is read into rules with bits."""
    policy = parse_policy("app", acl(capabilities=["read", "sudo"], comment="why"))
    assert (policy.language, policy.statements) == ("acl", ())
    assert [(rule.path, names(rule.capabilities)) for rule in policy.acl] == [
        ("secret/data/app/*", ("read", "sudo"))
    ]


@pytest.mark.parametrize(
    ("document", "rules"),
    [
        ({"path": {}}, []),
        ({"name": "x", "path": []}, []),
        ({"path": [{"a": {"capabilities": ["read"]}}, {"b": {}}]}, [("a", ("read",)), ("b", ())]),
        (
            {"path": {"a": [{"policy": "read"}, {"policy": "deny"}]}},
            [("a", ("read", "list")), ("a", ("deny",))],
        ),
        (acl("/a", policy="read"), [("a", ("read", "list"))]),
        (acl("a/", policy="write"), [("a/", ("create", "read", "update", "delete", "list"))]),
        (acl("a", policy="sudo"), [("a", ("create", "read", "update", "delete", "list", "sudo"))]),
        (acl("a", policy="read", capabilities=["patch"]), [("a", ("read", "patch", "list"))]),
        (acl("a", policy="read", capabilities=["deny"]), [("a", ("deny",))]),
        (acl("a", policy="deny", capabilities=["read"]), [("a", ("deny",))]),
        (acl("a", capabilities=["read", "deny", "sudo"]), [("a", ("deny",))]),
        (acl("a", capabilities=[]), [("a", ())]),
        (
            acl("secrets/dynamic/postgresql/*", policy="read"),
            [("secrets/dynamic/postgresql/*", ("read", "list"))],
        ),
        (acl("secret*", policy="read"), [("secret*", ("read", "list"))]),
        (acl("+/x", policy="read"), [("+/x", ("read", "list"))]),
        (acl("*", policy="read"), [("*", ("read", "list"))]),
    ],
)
def test_acl_forms(document: dict[str, Any], rules: list[tuple[str, tuple[str, ...]]]) -> None:
    """Lists, the old policy key, deny in the place of all others and leading slashes are as in Vault."""
    assert [(rule.path, names(rule.capabilities)) for rule in parse_policy("p", document).acl] == rules


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (
            acl(capabilities=["read", "write"]),
            r'^\$\.path\["secret/data/app/\*"\]\.capabilities\[1\]: unknown capability',
        ),
        (acl("a", capabilities=["root"]), r"^\$\.path\.a\.capabilities\[0\]: unknown capability"),
        (acl("a", capabilities=["subscribe"]), r"unknown capability"),
        (acl("a", capabilities="read"), r"capabilities: expected a list, not a string"),
        (acl("a", capabilities=None), r"capabilities: expected a list, not null"),
        (acl("a", policy="readwrite"), r"^\$\.path\.a\.policy: unknown value"),
        (acl("a", capability=["read"]), r"^\$\.path\.a\.capability: unknown key"),
        (acl("a", allowed_parameters=1), r"^\$\.path\.a\.allowed_parameters: expected an object"),
        (acl("a", denied_parameters={"x": "y"}), r"denied_parameters\.x: expected a list"),
        (acl("a", required_parameters=[1]), r"required_parameters\[0\]: expected a string"),
        (acl("a", min_wrapping_ttl="soon"), r"min_wrapping_ttl: .*no duration"),
        (acl("a", max_wrapping_ttl=None), r"max_wrapping_ttl: expected a string"),
        (acl("a", min_wrapping_ttl="2m", max_wrapping_ttl=60), r"cannot be less than"),
        (acl("a", mfa_methods=[]), r"mfa_methods: not evaluated"),
        (acl("a", control_group={}), r"control_group: not evaluated"),
        (acl("a", expiration="2030-01-01T00:00:00Z"), r"expiration: unknown key"),
        ({"path": {}, "extra": 1}, r"^\$\.extra: unknown key"),
        ({"path": {}, "name": 1}, r"^\$\.name: expected a string"),
        ({"path": "a"}, r"^\$\.path: expected an object, not a string"),
        ({"path": [1]}, r"^\$\.path\[0\]: expected an object"),
        ({"path": {"a": 1}}, r"^\$\.path\.a: expected an object"),
        ({"path": [{"a": ["x"]}]}, r"^\$\.path\[0\]\.a\[0\]: expected an object"),
        (acl("a/+*", policy="read"), r"\+\* is forbidden"),
        (acl("", policy="read"), r"empty"),
        (acl("/", policy="read"), r"empty"),
        (acl("//a", policy="read"), r"empty segment"),
        (acl("a//b", policy="deny"), r"empty segment"),
        (acl("a/../b", policy="deny"), r"segment '\.' or '\.\.'"),
        (acl("a\u2028b", policy="deny"), r"line separator"),
        (acl("e\u0301", policy="deny"), r"NFC"),
        (acl("secret/data/{{identity.entity.name}}", policy="read"), r"templated"),
        (acl("secrets", policy="read"), r"secret/data/…"),
        (acl("secrets/*", policy="read"), r"secret/data/…"),
        (acl("secrets*", policy="read"), r"secret/data/…"),
        (acl("/secrets/prod/db", policy="deny"), r"secret/data/…"),
        (acl("secrets/+/db", policy="read"), r"secret/data/…"),
        (acl("secrets/dynamic", policy="read"), r"secret/data/…"),
        (acl("a", capabilities=["read"], comment="\x00"), r"comment: the string has a NUL"),
    ],
)
def test_acl_refusals_name_the_place(document: dict[str, Any], place: str) -> None:
    """What an ACL may not say, or could not be honoured, is refused at its place."""
    with pytest.raises(InvalidRequest, match=place) as caught:
        parse_policy("app", json.dumps(document))
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ('path "secret/*" { capabilities = ["read"]', "HCL"),
        ("path", "HCL"),
        ("[]", "HCL"),
        ("{", r"line 1, column 2"),
        ('{\n  "version": "1",\n}', r"line 3, column 1|line 2, column"),
        ("{} {}", "not valid JSON"),
        ("{}", "either|native"),
        ('{"name": "x"}', "native"),
        ('{"version": "1", "version": "1"}', r'"version" twice'),
        ('{"path": {"a": {"policy": "deny"}, "a": {"policy": "read"}}}', r'"a" twice'),
        ('{"path": {"a": {"policy": "deny", "policy": "read"}}}', r'"policy" twice'),
        ('{"path": {}, "statements": []}', "either"),
        ('{"version": NaN}', "NaN"),
        ('{"version": Infinity}', "Infinity"),
        ('{"a":' * 100_000, "longer"),
        ('{"path":' * 20_000, "deeply"),
        ('{"path": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}", "deeply"),
        ('{"version": ' + "1" * 5000 + "}", "number that is too long"),
        ('{"version": "1\x00"}', "NUL"),
        ('{"\ud800": 1}', "surrogate"),
        ("{" + " " * 262_144 + "}", "longer than 262144"),
    ],
)
def test_text_that_is_no_policy(source: str, says: str) -> None:
    """Text that is not one JSON object in one of the two languages is refused with the reason."""
    with pytest.raises(InvalidRequest, match=says) as caught:
        parse_policy("app", source)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def test_decoded_documents_have_the_same_limits() -> None:
    """Documents that came decoded are bounded in size and depth too."""
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"path": deep}
    for document in (deep, native(paths=["a" * 300_000]), {"path": {1: {}}}, MappingProxyType({"path": {}})):
        with pytest.raises(InvalidRequest):
            parse_policy("app", document)  # type: ignore[arg-type]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text("a*+/.\x00é", max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["version", "statements", "path", "effect", "paths", "capabilities", "policy", "a", "\n"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_policy_or_refused(value: Any) -> None:
    """No JSON value raises anything but InvalidRequest."""
    try:
        policy = parse_policy("app", json.dumps(value))
    except InvalidRequest as exc:
        message = exc.message
    else:
        message = ""
        assert parse_policy("app", policy.source) == policy
    assert message.isprintable()


def test_default_policy() -> None:
    """The default policy grants a token what concerns itself, and nothing of the store."""
    granted = {rule.path: rule.capabilities for rule in parse_policy("default", DEFAULT_POLICY_SOURCE).acl}
    assert granted["auth/token/lookup-self"] == union(("read",))
    assert granted["auth/token/renew-self"] == granted["auth/token/revoke-self"] == union(("update",))
    assert granted["cubbyhole/*"] == union(("create", "read", "update", "delete", "list"))
    assert {"sys/capabilities-self", "sys/wrapping/unwrap", "sys/internal/ui/mounts/*"} <= granted.keys()
    assert not any(
        path.startswith("secret") or bits & (DENY | union(("sudo",))) for path, bits in granted.items()
    )


def test_lists_of_policy_names() -> None:
    """As in Vault, spaces around a name and names of nothing count for nothing, and none is named twice."""
    assert policy_names([" App ", "app", "", "  ", "\tb\n", "ROOT"]) == ("app", "b", "root")
    assert policy_names(["", " "]) == policy_names([]) == ()
    for wrong in ("a b", "a,b", "a/b"):
        with pytest.raises(InvalidRequest):
            policy_names(["a", wrong])


def test_policy_names() -> None:
    """Names are brought to lower case; root may be referred to and not be written."""
    assert check_policy_name("App-1_x.y") == "app-1_x.y"
    assert check_policy_name("default") == "default"
    assert normalise_policy_name("ROOT") == "root"
    with pytest.raises(InvalidRequest, match="root is built in"):
        check_policy_name("Root")


@pytest.mark.parametrize(
    "name", ["", "a" * 129, "a/b", "a b", "a\n", "é", "\u212a", "..", ".", "a*", "a\x00"]
)
def test_policy_names_refused(name: str) -> None:
    """Names that are no plain path segment are refused."""
    for check in (check_policy_name, normalise_policy_name):
        with pytest.raises(InvalidRequest):
            check(name)
