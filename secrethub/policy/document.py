"""Policies as written: the native document, and the choice between the two languages.

A native document::

    {"version": "1", "statements": [
      {"effect": "allow", "paths": ["secrets/prod/**"], "capabilities": ["read", "list"]},
      {"effect": "deny", "paths": ["secrets/prod/root/*"], "capabilities": ["*"]}]}

Paths name things as a person writes them: ``secrets/prod/db`` for a secret, a mount's own path
elsewhere. In a path ``*`` stands for any characters within one segment, ``**`` as a whole segment for
any number of segments, none included (``secrets/prod/**`` covers ``secrets/prod`` itself); everything
else is literal. ``"*"`` among capabilities means all of them.

``{{agent.id}}`` and ``{{agent.name}}`` stand for the agent that asks (:mod:`secrethub.policy.placeholders`).

A statement may have ``conditions`` (:mod:`secrethub.policy.conditions`). Unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from secrethub.errors import InvalidRequest
from secrethub.policy import strict
from secrethub.policy.acl import AclRule, parse_acl
from secrethub.policy.capabilities import BITS, EVERY, union
from secrethub.policy.conditions import Conditions, parse_conditions
from secrethub.policy.hcl import load_hcl
from secrethub.policy.names import fold_policy_path
from secrethub.policy.placeholders import check_placeholders, filled, has_placeholder

_MAX_FLOATING = 64
_STORE = frozenset({"data", "metadata", "delete", "undelete", "destroy", "subkeys"})
_NATIVE_CAPABILITIES = (*BITS, "*")


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One native statement; ``capabilities`` are bits."""

    effect: Literal["allow", "deny"]
    paths: tuple[str, ...]
    capabilities: int
    conditions: Conditions | None = None


class ParsedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that was found to be in order.

    Attributes:
        name: its name.
        language: which of the two languages it is written in.
        source: the text as written (a document that came decoded is written out).
        document: the decoded document.
        statements: its rules, if it is native.
        acl: its rules, if it is Vault's.
    """

    name: str
    language: Literal["native", "acl"]
    source: str
    document: Mapping[str, Any]
    statements: tuple[Statement, ...] = ()
    acl: tuple[AclRule, ...] = ()

    @property
    def personal(self) -> bool:
        """Whether it says something else to each agent."""
        return any(has_placeholder(path) for statement in self.statements for path in statement.paths)

    def said_to(self, values: Mapping[str, str]) -> ParsedPolicy:
        """Return what it says to somebody, without placeholders.

        Args:
            values: by the placeholder's name, as far as they are known.
        """
        statements = tuple(_said_to(statement, values) for statement in self.statements)
        return msgspec.structs.replace(self, statements=statements) if self.personal else self


def _said_to(statement: Statement, values: Mapping[str, str]) -> Statement:
    found = (filled(path, values, denies=statement.effect == "deny") for path in statement.paths)
    paths = tuple(fold_policy_path(path) for path in found if path is not None)
    return msgspec.structs.replace(statement, paths=paths)


def parse_policy(name: str, source: str | Mapping[str, Any]) -> ParsedPolicy:
    """Read a policy in either language.

    Args:
        name: its name, checked already.
        source: JSON or HCL text, or the decoded document.

    Raises:
        InvalidRequest: it is not one; the message names the place.
    """
    if isinstance(source, str):
        if not source.strip():
            raise InvalidRequest("the policy is empty")
        if not source.lstrip().startswith("{"):
            return ParsedPolicy(
                name=name,
                language="acl",
                source=source,
                document=(found := load_hcl(source)),
                acl=parse_acl(found),
            )
        text, document = source, strict.expect_object(strict.load(source), "$")
    else:
        text, document = strict.dump(source), strict.expect_object(source, "$")
    native, acl = "version" in document or "statements" in document, "path" in document
    if native and acl:
        raise InvalidRequest('$: a policy has either "statements" (native) or "path" (Vault\'s ACL)')
    if native:
        statements = _native(document)
        return ParsedPolicy(
            name=name, language="native", source=text, document=document, statements=statements
        )
    if acl:
        rules = parse_acl(document)
        return ParsedPolicy(name=name, language="acl", source=text, document=document, acl=rules)
    raise InvalidRequest('$: a policy has "version" and "statements" (native) or "path" (Vault\'s ACL)')


def _native(document: Mapping[str, Any]) -> tuple[Statement, ...]:
    strict.expect_keys(document, "$", ("version", "statements"))
    if document["version"] != "1":
        strict.refuse("$.version", 'this version reads documents of version "1"')
    statements = strict.expect_list(document["statements"], "$.statements")
    parsed = tuple(_statement(item, f"$.statements[{index}]") for index, item in enumerate(statements))
    # Each ** that something follows is tried at every segment of a request.
    floating = sum(path.count("**/") for statement in parsed for path in statement.paths)
    if floating > _MAX_FLOATING:
        strict.refuse("$.statements", f"more than {_MAX_FLOATING} times ** before the end of a path")
    return parsed


def _statement(value: Any, place: str) -> Statement:
    statement = strict.expect_object(value, place)
    strict.expect_keys(statement, place, ("effect", "paths", "capabilities"), ("conditions",))
    effect = strict.expect_text(statement["effect"], f"{place}.effect")
    if effect not in {"allow", "deny"}:
        strict.refuse(f"{place}.effect", f'an effect is "allow" or "deny", not {strict.quote(effect)}')
    return Statement(
        effect="allow" if effect == "allow" else "deny",
        paths=_paths(statement["paths"], f"{place}.paths"),
        capabilities=_capabilities(statement["capabilities"], f"{place}.capabilities"),
        conditions=parse_conditions(statement["conditions"], f"{place}.conditions")
        if "conditions" in statement
        else None,
    )


def _capabilities(value: Any, place: str) -> int:
    given = strict.expect_list(value, place)
    if not given:
        strict.refuse(place, "a statement names at least one capability")
    for index, item in enumerate(given):
        name = strict.expect_text(item, f"{place}[{index}]")
        if name == "deny":
            strict.refuse(f"{place}[{index}]", 'a native statement denies with "effect": "deny"')
        if name not in _NATIVE_CAPABILITIES:
            known = ", ".join(_NATIVE_CAPABILITIES)
            strict.refuse(f"{place}[{index}]", f"unknown capability {strict.quote(name)}; known are {known}")
    return EVERY if "*" in given else union(given)


def _paths(value: Any, place: str) -> tuple[str, ...]:
    given = strict.expect_list(value, place)
    if not given:
        strict.refuse(place, "a statement names at least one path")
    for index, item in enumerate(given):
        _check_path(strict.expect_text(item, f"{place}[{index}]"), f"{place}[{index}]")
    return tuple(map(fold_policy_path, given))


def _check_path(path: str, place: str) -> None:
    if path.startswith("/"):
        strict.refuse(place, "a path has no leading slash")
    segments = strict.check_rule_path(check_placeholders(path, place), place)
    if not segments[-1]:
        strict.refuse(place, "a path has no trailing slash; write /* or /** for what is below it")
    for segment in segments:
        if "**" in segment and segment != "**":
            strict.refuse(place, "** stands alone as a segment; within a segment write *")
    if segments[0] == "secret" and (len(segments) == 1 or segments[1] in _STORE or "*" in segments[1]):
        strict.refuse(place, "a native rule names the secret itself: write secrets/…, not secret/data/…")
