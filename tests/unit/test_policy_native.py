"""Native rules: what a path matches, and what several rules say together."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.policy.capabilities import Capability
from secrethub.policy.decision import Allowed, Denied, Question, compile_policies, decide
from secrethub.policy.document import ParsedPolicy, parse_policy

CAPABILITIES: tuple[Capability, ...] = ("create", "read", "update", "patch", "delete", "list", "sudo")


def policy(name: str, *statements: tuple[str, list[str], list[str]]) -> ParsedPolicy:
    """Return a native policy of (effect, paths, capabilities)."""
    document: dict[str, Any] = {
        "version": "1",
        "statements": [
            {"effect": effect, "paths": paths, "capabilities": capabilities}
            for effect, paths, capabilities in statements
        ],
    }
    return parse_policy(name, document)


def ask(path: str, capability: Capability = "read", *, sudo: bool = False) -> Question:
    """Return the question about a path that the Vault rules of no test mention."""
    return Question(
        path="-/" + path,
        acl_capability=capability,
        native_path=path,
        native_capability=capability,
        needs_sudo=sudo,
    )


def allows(pattern: str, path: str, capability: Capability = "read") -> bool:
    """Tell whether one rule for ``pattern`` allows ``path``."""
    policies = compile_policies([policy("p", ("allow", [pattern], ["read", "list"]))])
    return isinstance(decide(ask(path, capability), policies), Allowed)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("secrets/a", ["secrets/a"], ["secrets", "secrets/ab", "secrets/a/b", "Secrets/a", "secrets/A"]),
        ("secrets/*", ["secrets/a", "secrets/*"], ["secrets", "secrets/a/b"]),
        ("secrets/*/db", ["secrets/a/db"], ["secrets/db", "secrets/a/b/db"]),
        ("secrets/db-*", ["secrets/db-", "secrets/db-1"], ["secrets/db", "secrets/db-1/x", "secrets/xdb-1"]),
        ("secrets/*-db", ["secrets/-db", "secrets/x-db"], ["secrets/db", "secrets/x-dbx"]),
        ("secrets/a*a", ["secrets/aa", "secrets/aba", "secrets/aaa"], ["secrets/a", "secrets/ab"]),
        ("secrets/a*b*c", ["secrets/abc", "secrets/a-b-b-c"], ["secrets/acb", "secrets/a-c", "secrets/ab/c"]),
        ("secrets/*b*b*", ["secrets/bb", "secrets/abab"], ["secrets/b", "secrets/ab"]),
        ("secrets/**", ["secrets", "secrets/a", "secrets/a/b/c"], ["secretsx", "secre", "sys/a"]),
        ("**", ["a", "secrets/a/b", "sys/mounts"], []),
        (
            "secrets/**/db",
            ["secrets/db", "secrets/a/db", "secrets/a/b/db"],
            ["secrets", "secrets/db/a", "db"],
        ),
        ("**/root/**", ["root", "a/root", "a/b/root/c/d"], ["a/rooty", "a/b"]),
        ("secrets/**/a/**/b", ["secrets/a/b", "secrets/a/a/x/b/b"], ["secrets/b/a", "secrets/a"]),
        ("secrets/**/*", ["secrets/a", "secrets/a/b"], ["secrets"]),
        ("secrets/+/x", ["secrets/+/x"], ["secrets/a/x"]),
        ("secrets/[ab]?.(x|y)", ["secrets/[ab]?.(x|y)"], ["secrets/ab", "secrets/ax.x"]),
        ("secrets/é*", ["secrets/é", "secrets/été"], ["secrets/e"]),
    ],
)
def test_patterns(pattern: str, matching: list[str], other: list[str]) -> None:
    """A star stays within its segment, two stars are any number of segments, everything else is literal."""
    for path in matching:
        assert allows(pattern, path), path
    for path in other:
        assert not allows(pattern, path), path


def test_listing_asks_about_the_folder() -> None:
    """A list of a folder is covered by rules for the folder and by rules for everything in it."""
    for pattern in ("secrets/prod", "secrets/prod/*", "secrets/prod/**", "secrets/**", "secrets/*"):
        assert allows(pattern, "secrets/prod", "list"), pattern
    for pattern in ("secrets/prod/a*", "secrets/prod/*/x", "secrets/prod/db", "secrets/dev/*"):
        assert not allows(pattern, "secrets/prod", "list"), pattern
    assert not allows("secrets/prod/*", "secrets/prod", "read")
    policies = compile_policies(
        [policy("p", ("allow", ["secrets/**"], ["*"]), ("deny", ["secrets/prod/root/*"], ["*"]))]
    )
    assert isinstance(decide(ask("secrets/prod/root", "list"), policies), Denied)
    assert isinstance(decide(ask("secrets/prod/root", "read"), policies), Allowed)
    assert isinstance(decide(ask("secrets/prod", "list"), policies), Allowed)


def test_capabilities_are_looked_at_one_by_one() -> None:
    """A rule speaks only about the capabilities that it names."""
    policies = compile_policies(
        [policy("p", ("allow", ["secrets/**"], ["*"]), ("deny", ["secrets/prod/**"], ["delete", "sudo"]))]
    )
    for capability in CAPABILITIES:
        expected = Denied if capability in {"delete", "sudo"} else Allowed
        assert isinstance(decide(ask("secrets/prod/db", capability), policies), expected), capability
        assert isinstance(decide(ask("secrets/dev/db", capability), policies), Allowed), capability


def test_sudo_is_needed_beside_the_capability() -> None:
    """Where sudo is needed the capability alone is not enough, and a denial of sudo denies."""
    read = compile_policies([policy("p", ("allow", ["sys/**"], ["read"]))])
    both = [policy("p", ("allow", ["sys/**"], ["read"])), policy("q", ("allow", ["sys/raw"], ["sudo"]))]
    question = ask("sys/raw", sudo=True)
    assert isinstance(decide(question, read), Denied)
    assert "with sudo" in decide_reason(question, read)
    assert isinstance(decide(question, compile_policies(both)), Allowed)
    no_sudo = policy("r", ("deny", ["sys/raw"], ["sudo"]))
    assert isinstance(decide(question, compile_policies([*both, no_sudo])), Denied)
    assert isinstance(decide(ask("sys/raw"), compile_policies([*both, no_sudo])), Allowed)


def decide_reason(question: Question, policies: Any) -> str:
    """Return why the question is denied."""
    decision = decide(question, policies)
    assert isinstance(decision, Denied)
    return decision.reason


def test_patterns_do_not_explode() -> None:
    """Patterns made to make a matcher backtrack are answered like any other."""
    stars = "secrets/" + "*a" * 500 + "*"
    deep = "**/" + "*/" * 30 + "**/" + "a/" * 30 + "b"
    policies = compile_policies([policy("p", ("allow", [stars, deep, *["**/x/a"] * 20], ["read"]))])
    assert isinstance(decide(ask("secrets/" + "a" * 499 + "b" * 500), policies), Denied)
    assert isinstance(decide(ask("secrets/" + "a" * 1000), policies), Allowed)
    assert isinstance(decide(ask("/".join(["a"] * 256)), policies), Denied)
    assert isinstance(decide(ask("/".join(["a"] * 255) + "/b"), policies), Allowed)


def slow_match(pattern: str, path: str) -> bool:
    """Match by the definition: every way to divide the path among the pattern's pieces."""

    @cache
    def segment(glob: str, text: str) -> bool:
        if not glob or not text:
            return glob.strip("*") == "" and text == ""
        if glob[0] == "*":
            return segment(glob[1:], text) or segment(glob, text[1:])
        return glob[0] == text[0] and segment(glob[1:], text[1:])

    @cache
    def segments(globs: tuple[str, ...], texts: tuple[str, ...]) -> bool:
        if not globs:
            return not texts
        if globs[0] == "**":
            return segments(globs[1:], texts) or (bool(texts) and segments(globs, texts[1:]))
        return bool(texts) and segment(globs[0], texts[0]) and segments(globs[1:], texts[1:])

    return segments(tuple(pattern.split("/")), tuple(path.split("/")))


PATHS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5).map("/".join)
PATTERNS = st.lists(
    st.one_of(st.just("**"), st.text("ab*", min_size=1, max_size=4).filter(lambda text: "**" not in text)),
    min_size=1,
    max_size=5,
).map("/".join)
STATEMENTS = st.tuples(
    st.sampled_from(["allow", "allow", "deny"]),
    st.lists(PATTERNS, min_size=1, max_size=3),
    st.lists(st.sampled_from([*CAPABILITIES, "*"]), min_size=1, max_size=3),
)


@given(PATTERNS, PATHS)
def test_matching_is_the_definition(pattern: str, path: str) -> None:
    """The tree of segments answers what the definition of the two stars says."""
    assert allows(pattern, path) is slow_match(pattern, path)


@given(
    st.lists(st.lists(STATEMENTS, max_size=3), max_size=4),
    PATHS,
    st.sampled_from(CAPABILITIES),
    st.booleans(),
    st.randoms(),
)
def test_deny_wins_and_order_is_irrelevant(
    statements: list[list[tuple[str, list[str], list[str]]]],
    path: str,
    capability: Capability,
    sudo: bool,
    random: Any,
) -> None:
    """Allowed is exactly what some statement allows and none denies, in any order of policies."""
    needed = {capability, "sudo"} if sudo else {capability}

    def named(effect: str) -> set[str]:
        found: set[str] = set()
        for each in (statement for group in statements for statement in group):
            matches = any(
                slow_match(pattern, path) or (capability == "list" and slow_list(pattern, path))
                for pattern in each[1]
            )
            if each[0] == effect and matches:
                found |= set(CAPABILITIES) if "*" in each[2] else set(each[2])
        return found

    parsed = [policy(f"p{index}", *group) for index, group in enumerate(statements)]
    decision = decide(ask(path, capability, sudo=sudo), compile_policies(parsed))
    assert isinstance(decision, Allowed) is (needed <= named("allow") and not needed & named("deny"))
    random.shuffle(parsed)
    again = decide(ask(path, capability, sudo=sudo), compile_policies(parsed))
    assert type(again) is type(decision)
    assert sorted(map(repr, again.trace)) == sorted(map(repr, decision.trace))


def slow_list(pattern: str, path: str) -> bool:
    """Tell whether ``pattern`` matches the inside of the folder ``path``, whose last segment is empty."""
    *above, last = pattern.split("/")
    if last == "**":
        return slow_match(pattern, path) or (bool(above) and slow_list("/".join(above), path))
    return last == "*" and bool(above) and slow_match("/".join(above), path)


def test_the_trace_names_every_rule_that_spoke() -> None:
    """The trace names policy, rule and effect of each rule that matches, and the reason the denial."""
    parsed = [
        policy("readers", ("allow", ["secrets/**"], ["read"])),
        policy("writers", ("allow", ["secrets/prod/*"], ["update"])),
        policy("guard", ("deny", ["secrets/*/root"], ["*"]), ("deny", ["sys/**"], ["*"])),
    ]
    policies = compile_policies(parsed)
    decision = decide(ask("secrets/prod/root"), policies)
    assert {(step.policy, step.rule, step.effect) for step in decision.trace} == {
        ("readers", "secrets/**", "allow"),
        ("writers", "secrets/prod/*", "silent"),
        ("guard", "secrets/*/root", "deny"),
    }
    assert isinstance(decision, Denied)
    assert decision.reason == "denied by policy guard, rule secrets/*/root"
    assert decide_reason(ask("kv/x"), policies) == "no policy allows read"
    assert policies.names == ("readers", "writers", "guard")


def test_root_is_allowed_everything() -> None:
    """Root is allowed even what other policies deny, and nobody else is allowed anything by default."""
    guard = policy("guard", ("deny", ["**"], ["*"]))
    for capability in CAPABILITIES:
        question = ask("sys/raw", capability, sudo=True)
        assert isinstance(decide(question, compile_policies([guard], root=True)), Allowed)
        assert isinstance(decide(question, compile_policies([], root=True)), Allowed)
        assert isinstance(decide(question, compile_policies([])), Denied)
    (step,) = decide(ask("x"), compile_policies([], root=True)).trace
    assert (step.policy, step.effect) == ("root", "allow")


GRANTS = st.lists(
    st.tuples(
        st.sampled_from(["allow", "deny"]),
        st.sampled_from([["secrets/**"], ["secrets/a"], ["secrets/*/b"], ["sys/**"]]),
        st.sampled_from([["read"], ["*"], ["read", "sudo"], ["list"]]),
    ),
    max_size=4,
)


@given(
    own=GRANTS,
    narrowing=GRANTS,
    path=st.sampled_from(["secrets/a", "secrets/a/b", "sys/raw"]),
    capability=st.sampled_from(CAPABILITIES),
    sudo=st.booleans(),
    root=st.booleans(),
)
def test_narrowed_policies_allow_what_both_allow(
    *,
    own: list[tuple[str, list[str], list[str]]],
    narrowing: list[tuple[str, list[str], list[str]]],
    path: str,
    capability: Capability,
    sudo: bool,
    root: bool,
) -> None:
    """Whatever the two say, they allow no more together than either does alone, root's holder included."""
    question = ask(path, capability, sudo=sudo)
    first = compile_policies([policy("own", *own)] if own else [], root=root)
    second = compile_policies([policy("app", *narrowing)] if narrowing else [])
    both = first.narrowed("application web", second)
    verdict = decide(question, both)
    separately = [isinstance(decide(question, one), Allowed) for one in (first, second)]
    assert isinstance(verdict, Allowed) is all(separately)
    assert first.narrowing is None
    assert both.reaches("secrets/") is (first.reaches("secrets/") and second.reaches("secrets/"))
    if isinstance(verdict, Denied):
        assert verdict.reason.startswith("application web: ") is separately[0]
