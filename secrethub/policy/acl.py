"""Vault's ACL language, in HCL and in its JSON form, which mean the same.

::

    path "secret/data/app/*" { capabilities = ["read", "list"] }

    {"path": {"secret/data/app/*": {"capabilities": ["read", "list"]}}}

Read as Vault reads it: ``path`` may also be a list of such objects, a path's rule a list of rules; the
old ``policy`` key (``deny``, ``read``, ``write``, ``sudo``) adds its capabilities; ``deny`` stands in the
place of all others; a rule without capabilities grants nothing and still hides less specific ones.
A leading slash is dropped. A trailing ``*`` is a prefix, ``+`` as a whole segment is any one segment.

Parameters and wrapping times narrow a rule (:mod:`secrethub.policy.acl_parameters`). Other keys are refused,
for a rule that is stored without them would grant more than was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from secrethub.policy import strict
from secrethub.policy.acl_parameters import NARROWING, Narrowing, parse_narrowing
from secrethub.policy.capabilities import BITS, DENY, union
from secrethub.policy.names import fold_policy_path

_LEGACY = {
    "deny": DENY,
    "read": union(("read", "list")),
    "write": union(("create", "read", "update", "delete", "list")),
    "sudo": union(("create", "read", "update", "delete", "list", "sudo")),
}
_ELSEWHERE = frozenset({"mfa_methods", "control_group"})
_FLAT = "secrets"
_RESERVED = "secrets/dynamic/"


class AclRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. ``path`` is without a leading slash; ``capabilities`` are bits, or DENY alone."""

    path: str
    capabilities: int
    narrowing: Narrowing | None = None


def parse_acl(document: Mapping[str, Any]) -> tuple[AclRule, ...]:
    """Read the rules of a document.

    Args:
        document: the decoded JSON; without the key ``path`` it has no rules, as a text of comments.

    Raises:
        InvalidRequest: something in it is unknown or could not be honoured.
    """
    strict.expect_keys(document, "$", (), ("path", "name"))
    if "name" in document:
        strict.expect_text(document["name"], "$.name")
    return tuple(
        _rule(path, body, place)
        for paths, outer in _each(document.get("path", ()), "$.path")
        for path, bodies in paths.items()
        for body, place in _each(bodies, strict.member(outer, path))
    )


def _each(value: Any, place: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield an object, or the objects of a list, with their places."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield strict.expect_object(item, f"{place}[{index}]"), f"{place}[{index}]"
    else:
        yield strict.expect_object(value, place), place


def _rule(path: str, body: Mapping[str, Any], place: str) -> AclRule:
    for name in body:
        if name in _ELSEWHERE:
            strict.refuse(strict.member(place, name), "not evaluated here, so no rule is stored that has it")
    strict.expect_keys(body, place, (), ("capabilities", "policy", "comment", *NARROWING))
    if "comment" in body:
        strict.expect_text(body["comment"], f"{place}.comment")
    bits = 0
    if "policy" in body:
        old = strict.expect_text(body["policy"], f"{place}.policy")
        if old not in _LEGACY:
            known = ", ".join(_LEGACY)
            strict.refuse(f"{place}.policy", f"unknown value {strict.quote(old)}; known are {known}")
        bits = _LEGACY[old]
    for index, item in enumerate(strict.expect_list(body.get("capabilities", ()), f"{place}.capabilities")):
        here = f"{place}.capabilities[{index}]"
        name = strict.expect_text(item, here)
        if name != "deny" and name not in BITS:
            known = ", ".join([*BITS, "deny"])
            strict.refuse(here, f"unknown capability {strict.quote(name)}; known are {known}")
        bits |= DENY if name == "deny" else BITS[name]
    return AclRule(
        path=_path(path, place),
        capabilities=DENY if bits & DENY else bits,
        narrowing=parse_narrowing(body, place),
    )


def _path(path: str, place: str) -> str:
    path = path.removeprefix("/")
    if "+*" in path:
        strict.refuse(place, "invalid use of wildcards: +* is forbidden")
    strict.check_rule_path(path, place)
    below = path == _FLAT or path.startswith((_FLAT + "/", _FLAT + "*"))
    if below and not path.startswith(_RESERVED):
        strict.refuse(
            place,
            "secrets/… is the flat view of the store at secret/; Vault's ACL names secret/data/…",
        )
    return fold_policy_path(path)
