"""Vault's rules: which of several patterns decides, what lists match, and how policies unite."""

from __future__ import annotations

import re
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.policy.acl_matching import AclIndex
from secrethub.policy.builtin import DEFAULT_POLICY_SOURCE
from secrethub.policy.capabilities import BITS, DENY, Capability
from secrethub.policy.decision import Allowed, Denied, Question, compile_policies, decide
from secrethub.policy.document import ParsedPolicy, parse_policy

CAPABILITIES: tuple[Capability, ...] = ("create", "read", "update", "patch", "delete", "list", "sudo")


def policy(name: str, **rules: list[str]) -> ParsedPolicy:
    """Return an ACL policy of path=capabilities."""
    return parse_policy(name, {"path": {path: {"capabilities": names} for path, names in rules.items()}})


def ask(path: str, capability: Capability = "read", *, sudo: bool = False) -> Question:
    """Return the question about a path that the native rules of no test mention."""
    return Question(
        path=path,
        acl_capability=capability,
        native_path="-",
        native_capability=capability,
        needs_sudo=sudo,
    )


def allowed(
    rules: dict[str, list[str]], path: str, capability: Capability = "read", *, sudo: bool = False
) -> bool:
    """Tell whether one policy with these rules allows."""
    policies = compile_policies([policy("p", **rules)])
    return isinstance(decide(ask(path, capability, sudo=sudo), policies), Allowed)


def chosen(patterns: list[str], path: str, *, listing: bool = False) -> str | None:
    """Return which of the patterns decides about ``path``, whatever their order."""
    found = set()
    for order in (patterns, patterns[::-1]):
        entry = AclIndex([("p", pattern, BITS["read"]) for pattern in order]).find(path, listing=listing)
        found.add(None if entry is None else entry.path)
    (only,) = found
    return only


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("secret/foo", ["secret/foo"], ["secret/food", "secret/foo/bar", "secret", "secret/Foo"]),
        ("secret/bar/*", ["secret/bar/zip", "secret/bar/zip/zap"], ["secret/bars/zip", "secret/bar"]),
        ("secret/zip-*", ["secret/zip-", "secret/zip-zap", "secret/zip-zap/zong"], ["secret/zip/zap"]),
        ("*", ["a", "a/b"], []),
        ("secret/+/teamb", ["secret/foo/teamb", "secret/+/teamb"], ["secret/teamb", "secret/foo/bar/teamb"]),
        ("secret/+/+/teamb", ["secret/foo/bar/teamb"], ["secret/foo/teamb", "secret/a/b/c/teamb"]),
        ("+", ["a", "+"], ["a/b"]),
        ("+/b", ["a/b"], ["b", "a/b/c", "a/c"]),
        (
            "secret/+/a*",
            ["secret/x/a", "secret/x/ab", "secret/x/ab/c"],
            ["secret/x/b", "secret/x", "secret/ab"],
        ),
        ("secret/+/*", ["secret/x/a", "secret/x/a/b"], ["secret/x", "secret"]),
        ("secret/a+b/*", ["secret/a+b/c"], ["secret/axb/c"]),
        ("secret/+a/b", ["secret/+a/b"], ["secret/xa/b"]),
        ("secret/*/b", ["secret/*/b"], ["secret/a/b"]),
        ("secret/a?[b]", ["secret/a?[b]"], ["secret/axb"]),
    ],
)
def test_patterns(pattern: str, matching: list[str], other: list[str]) -> None:
    """An exact path, a trailing star as a prefix and plus as a whole segment match as in Vault."""
    for path in matching:
        assert chosen([pattern], path) == pattern, path
    for path in other:
        assert chosen([pattern], path) is None, path


@pytest.mark.parametrize(
    ("path", "winner", "losers"),
    [
        # an exact path before every pattern
        ("foo/bar", "foo/bar", ["foo/bar*", "foo/+", "+/bar", "*"]),
        # the longest prefix
        ("foo/bar/baz", "foo/bar/*", ["foo/*", "foo/ba*", "*"]),
        # the first + or * comes later
        ("foo/ab", "foo/a*", ["foo/+"]),
        ("foo/bar/x/baz", "foo/bar/+/baz", ["foo/+/x/baz", "+/bar/x/baz"]),
        ("foo/bar/x/baz", "foo/bar/*", ["foo/+/x/baz"]),
        # no star at the end
        ("foo/x/bar", "foo/+/bar", ["foo/+/ba*", "foo/*"]),
        ("foo/x", "foo/+", ["foo/*"]),
        # fewer plus segments
        ("foo/bar/x/baz", "foo/+/x/baz", ["foo/+/+/baz", "foo/+/+/+"]),
        ("foo/x/y/z", "foo/+/y/*", ["foo/+/+/*"]),
        # the longer pattern
        ("foo/x/bar/baz", "foo/+/bar/ba*", ["foo/+/bar/b*", "foo/+/bar/*"]),
        # a prefix from the beginning before one of any first segment
        ("foo/bar/bar/baz", "*", ["+/*"]),
        ("foo/bar/bar/baz", "foo/+/*", ["+/*", "*"]),
        ("foo/bar/bar/baz", "foo/+/bar/baz", ["foo/+/+/*", "foo/+/+/baz", "foo/*"]),
        # where the first + stands counts before the text does, whichever sorts first: ( is less than +
        ("foo/(ar/(ar/baz", "foo/(ar/+/baz", ["foo/+/(ar/baz"]),
        ("foo/bar/bar/baz", "foo/bar/+/baz", ["foo/bar/+/baz*"]),
        ("foo/bar/bar/baz", "foo/bar/+/ba*", ["foo/bar/+/b*"]),
        # the lexicographically greater
        ("foo/x/a/b", "foo/+/a/+", ["foo/+/+/b"]),
    ],
)
def test_priority(path: str, winner: str, losers: list[str]) -> None:
    """Of all patterns that match, the one that Vault documents as most specific decides."""
    assert chosen([winner, *losers], path) == winner
    for loser in losers:
        assert chosen([winner, loser], path) == winner, loser


HOUSE = """
path "dev/*"              { policy = "sudo" }
path "stage/*"            { policy = "write" }
path "stage/aws/*"        { policy = "read"  capabilities = ["update", "sudo"] }
path "stage/aws/policy/*" { policy = "sudo" }
path "prod/*"             { policy = "read" }
path "prod/aws/*"         { policy = "deny" }
path "one/bar"            { capabilities = ["read", "create", "sudo"] }
path "two/quux"           { capabilities = ["read", "create", "patch"] }
path "test/+/segment"     { capabilities = ["read"] }
path "+/segment/at/front" { capabilities = ["read"] }
path "test/at/end/+"      { capabilities = ["read"] }
path "test/+/wild/+/*"    { capabilities = ["read"] }
path "1/2/*"              { capabilities = ["create"] }
path "1/2/+"              { capabilities = ["read"] }
path "1/2/+/+"            { capabilities = ["update"] }
"""
GUARD = """
path "dev/hide/*"         { policy = "deny" }
path "stage/aws/policy/*" { capabilities = ["deny"] }
path "prod/*"             { policy = "write" }
path "one/bar"            { capabilities = ["deny"] }
"""


@pytest.mark.parametrize(
    ("path", "capability", "sudo", "alone", "guarded"),
    [
        ("root", "read", False, False, False),
        ("dev/foo", "read", True, True, True),
        ("dev/foo", "update", True, True, True),
        ("dev/hide/foo", "read", False, True, False),
        ("stage/foo", "delete", False, True, True),
        ("stage/foo", "delete", True, False, False),
        ("stage/aws/foo", "list", True, True, True),
        ("stage/aws/foo", "update", True, True, True),
        ("stage/aws/foo", "delete", False, False, False),
        ("stage/aws/policy/foo", "update", True, True, False),
        ("prod/foo", "delete", False, False, True),
        ("prod/foo", "read", False, True, True),
        ("prod/foo", "read", True, False, False),
        ("prod/aws/foo", "read", False, False, False),
        ("one/bar", "read", True, True, False),
        ("one/bar", "create", True, True, False),
        ("one/bar", "update", False, False, False),
        ("two/quux", "patch", False, True, True),
        ("two/quux", "update", False, False, False),
        ("test/foo/bar/segment", "read", False, False, False),
        ("test/foo/segment", "read", False, True, True),
        ("x/segment/at/front", "read", False, True, True),
        ("x/segment/at/frond", "read", False, False, False),
        ("test/at/end/foo", "read", False, True, True),
        ("test/at/end/foo/x", "read", False, False, False),
        ("test/a/wild/b/c/d", "read", False, True, True),
        ("test/a/wild/b", "read", False, False, False),
        ("1/2/3", "read", False, True, True),
        ("1/2/3", "create", False, False, False),
        ("1/2/3/4", "update", False, True, True),
        ("1/2/3/4", "read", False, False, False),
        ("1/2/3/4/5", "create", False, True, True),
    ],
)
def test_a_house_of_rules(path: str, capability: Capability, sudo: bool, alone: bool, guarded: bool) -> None:
    """One policy of every form, alone and beside a second one, decides as Vault is known to."""
    house, guard = parse_policy("house", HOUSE), parse_policy("guard", GUARD)
    for together, expected in (([house], alone), ([house, guard], guarded), ([guard, house], guarded)):
        verdict = decide(ask(path, capability, sudo=sudo), compile_policies(together))
        assert isinstance(verdict, Allowed) is expected


def test_a_plus_inside_a_segment_is_literal_but_no_exact_rule() -> None:
    """As in Vault a path with /+ is ranked among the patterns, even where the plus is literal."""
    assert chosen(["foo/+bar", "foo/*"], "foo/+bar") == "foo/+bar"
    assert chosen(["foo/+bar", "foo/+b*"], "foo/+bar") == "foo/+bar"
    assert chosen(["foo/+bar", "foo/+"], "foo/+bar") == "foo/+bar"


def test_a_more_specific_rule_hides_the_others() -> None:
    """Only the deciding rule counts: it takes away what broader rules grant, and grants past their deny."""
    rules = {
        "secret/*": ["read", "update"],
        "secret/a/*": ["update"],
        "secret/b/*": [],
        "secret/c/*": ["deny"],
    }
    rules["secret/c/d"] = ["read"]
    assert allowed(rules, "secret/x")
    assert not allowed(rules, "secret/a/x")
    assert allowed(rules, "secret/a/x", "update")
    assert not allowed(rules, "secret/b/x", "update")
    assert not allowed(rules, "secret/c/x")
    assert allowed(rules, "secret/c/d")


def test_policies_unite_on_the_same_path() -> None:
    """The same path in several policies grants the union, and nothing at all once one of them denies."""
    reader, writer = policy("r", **{"a/*": ["read"]}), policy("w", **{"a/*": ["update"], "/a/*": ["sudo"]})
    guard = policy("g", **{"a/*": ["deny"]})
    united = compile_policies([reader, writer])
    for capability in ("read", "update"):
        assert isinstance(decide(ask("a/x", capability, sudo=True), united), Allowed)
    assert isinstance(decide(ask("a/x", "delete"), united), Denied)
    for parsed in ([reader, guard, writer], [guard, writer, reader], [writer, reader, guard]):
        assert isinstance(decide(ask("a/x"), compile_policies(parsed)), Denied)
        entry = compile_policies(parsed).acl.find("a/x", listing=False)
        assert entry is not None
        assert entry.capabilities == DENY


def test_sudo_comes_from_the_deciding_rule() -> None:
    """Where sudo is needed, the deciding rule must name it."""
    rules = {"sys/*": ["read", "sudo"], "sys/raw": ["read"], "sys/audit": ["sudo"]}
    assert allowed(rules, "sys/x", sudo=True)
    assert not allowed(rules, "sys/raw", sudo=True)
    assert not allowed(rules, "sys/audit", sudo=True)


@pytest.mark.parametrize(
    ("patterns", "winner"),
    [
        (["a/b/"], "a/b/"),
        (["a/b"], "a/b"),
        (["a/b/", "a/b"], "a/b/"),
        (["a/b", "a/b/*"], "a/b"),
        (["a/b/*"], "a/b/*"),
        (["a/b*"], "a/b*"),
        (["a/+"], "a/+"),
        (["a/+/"], "a/+/"),
        (["a/+/", "a/+"], "a/+"),
        (["a/*", "a/b/*"], "a/*"),
        (["+/b", "a/b/*"], "+/b"),
        (["a/+/+"], "a/+/+"),
        (["a/b/c", "a/b/c*"], None),
    ],
)
def test_lists_are_asked_with_and_without_a_trailing_slash(patterns: list[str], winner: str | None) -> None:
    """A list of a/b looks for a/b/ and a/b exactly, then for patterns on a/b, then on a/b/, as Vault does."""
    assert chosen(patterns, "a/b", listing=True) == winner


def test_only_lists_know_the_trailing_slash() -> None:
    """Other capabilities never match a path written with a trailing slash."""
    assert chosen(["a/b/"], "a/b") is None
    assert chosen(["a/b/*"], "a/b") is None
    assert allowed({"secret/metadata/app/*": ["list"]}, "secret/metadata/app", "list")
    assert not allowed({"secret/metadata/app/*": ["read"]}, "secret/metadata/app", "read")


def vault_choice(patterns: list[str], path: str, listing: bool) -> str | None:
    """Choose as Vault's documentation says, slowly: match everything, then compare two by two."""
    request = path + "/" if listing else path

    def first_wildcard(pattern: str) -> int:
        if is_segmented(pattern):
            return pattern.index("+")
        return len(pattern) - 1

    def is_segmented(pattern: str) -> bool:
        return re.search(r"(^|/)\+(/|$)|/\+", pattern) is not None

    def matches(pattern: str, text: str) -> bool:
        expression = re.escape(pattern.removesuffix("*"))
        if is_segmented(pattern):
            pieces = pattern.removesuffix("*").split("/")
            expression = "/".join("[^/]*" if piece == "+" else re.escape(piece) for piece in pieces)
        return re.fullmatch(expression + (".*" if pattern.endswith("*") else ""), text) is not None

    def compare(one: str, two: str) -> int:
        keys = [
            (
                first_wildcard(pattern),
                not pattern.endswith("*"),
                -sum(piece == "+" for piece in pattern.removesuffix("*").split("/")),
                len(pattern.removesuffix("*")),
                pattern.removesuffix("*"),
            )
            for pattern in (one, two)
        ]
        for left, right in zip(*keys, strict=True):
            if left != right:
                return 1 if left > right else -1
        return 0

    exact = [pattern for pattern in patterns if not pattern.endswith("*") and not is_segmented(pattern)]
    for text in (request, request.rstrip("/")):
        if text in exact:
            return text
    for text in (request.rstrip("/"), request):
        found = [pattern for pattern in set(patterns) - set(exact) if matches(pattern, text)]
        if found:
            return max(found, key=cmp_to_key(compare))
    return None


SEGMENTS = st.sampled_from(["a", "b", "ab", "+", "+a"])
PATTERNS = (
    st.tuples(
        st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join), st.sampled_from(["", "", "*", "/", "/*"])
    )
    .map("".join)
    .filter(lambda pattern: "+*" not in pattern)
)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "+a", "abc"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(PATTERNS, max_size=6, unique=True), PATHS, st.booleans())
def test_the_choice_is_the_documented_one(patterns: list[str], path: str, listing: bool) -> None:
    """The index chooses what comparing every two matching patterns by the documented rules chooses."""
    assert chosen(patterns, path, listing=listing) == vault_choice(patterns, path, listing)


RULES = st.dictionaries(PATTERNS, st.lists(st.sampled_from([*CAPABILITIES, "deny"]), max_size=3), max_size=4)
NATIVE = st.lists(
    st.fixed_dictionaries(
        {
            "effect": st.sampled_from(["allow", "deny"]),
            "paths": st.lists(st.sampled_from(["-", "*", "**", "a"]), min_size=1, max_size=2),
            "capabilities": st.lists(st.sampled_from([*CAPABILITIES, "*"]), min_size=1, max_size=2),
        }
    ),
    max_size=3,
)


@given(
    st.lists(RULES, max_size=3),
    st.lists(NATIVE, max_size=3),
    PATHS,
    st.sampled_from(CAPABILITIES),
    st.randoms(),
)
def test_neither_denies_and_one_allows(
    rules: list[dict[str, list[str]]],
    natives: list[list[dict[str, Any]]],
    path: str,
    capability: Capability,
    random: Any,
) -> None:
    """Two languages: allowed if neither denies and at least one allows, in any order of policies."""
    acls = [policy(f"a{index}", **each) for index, each in enumerate(rules)]
    documents = [
        parse_policy(f"n{index}", {"version": "1", "statements": each}) for index, each in enumerate(natives)
    ]
    question = ask(path, capability)
    entry = AclIndex([(p.name, rule.path, rule.capabilities) for p in acls for rule in p.acl]).find(
        path, listing=capability == "list"
    )
    bits = 0 if entry is None else entry.capabilities
    spoken = {
        statement["effect"]
        for statement in (statement for each in natives for statement in each)
        # A denial speaks about the endpoint's own path too.
        if ({"-", "*", "**"} | ({path} if statement["effect"] == "deny" else set())) & set(statement["paths"])
        and {capability, "*"} & set(statement["capabilities"])
    }
    expected = (
        not bits & DENY and "deny" not in spoken and (bool(bits & BITS[capability]) or "allow" in spoken)
    )
    together = [*acls, *documents]
    random.shuffle(together)
    assert isinstance(decide(question, compile_policies(together)), Allowed) is expected


def test_who_may_see_that_a_mount_exists() -> None:
    """A mount shows to those who are granted something below it, in either language; denials show nothing."""
    statements = [
        {"effect": "allow", "paths": ["kv/*/a"], "capabilities": ["read"]},
        {"effect": "deny", "paths": ["pki/**"], "capabilities": ["*"]},
    ]
    native = parse_policy("n", {"version": "1", "statements": statements})
    rules = {
        "secret/data/+/x": ["read"],
        "sys/*": ["deny"],
        "cubby": ["read"],
        "auth/t*": ["update"],
        "ssh/x": [],
    }
    policies = compile_policies([policy("p", **rules), native])
    for mount in ("secret/", "kv/", "auth/", "auth/token/"):
        assert policies.reaches(mount), mount
    for mount in ("secrets/", "sys/", "pki/", "cubbyhole/", "auth/approle/", "ssh/"):
        assert not policies.reaches(mount), mount
    assert compile_policies([], root=True).reaches("sys/")
    assert not compile_policies([]).reaches("sys/")


def test_each_language_denies_what_the_other_allows() -> None:
    """A native deny beats an ACL allow, an ACL deny a native allow; not granting is no denial."""

    def native(effect: str) -> ParsedPolicy:
        statement = {"effect": effect, "paths": ["secrets/prod/**"], "capabilities": ["read"]}
        return parse_policy(f"native-{effect}", {"version": "1", "statements": [statement]})

    question = Question(
        path="secret/data/prod/db",
        acl_capability="read",
        native_path="secrets/prod/db",
        native_capability="read",
    )
    granted = policy("granted", **{"secret/data/prod/*": ["read"]})
    denied = policy("denied", **{"secret/data/prod/*": ["deny"]})
    silent = policy("silent", **{"secret/data/prod/*": ["update"]})
    default = parse_policy("default", DEFAULT_POLICY_SOURCE)
    for together, expected in [
        ([granted], Allowed),
        ([native("allow")], Allowed),
        ([granted, native("deny")], Denied),
        ([denied, native("allow")], Denied),
        ([silent, native("allow")], Allowed),
        ([default, native("allow")], Allowed),
        ([silent], Denied),
        ([silent, native("deny")], Denied),
        ([default], Denied),
        ([], Denied),
    ]:
        assert isinstance(decide(question, compile_policies(together)), expected), together
    decision = decide(question, compile_policies([denied, native("allow")]))
    assert isinstance(decision, Denied)
    assert decision.reason == "denied by policy denied, rule secret/data/prod/*"
    assert {(step.language, step.effect) for step in decision.trace} == {("acl", "deny"), ("native", "allow")}
