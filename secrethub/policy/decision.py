"""The one decision about a request, with its reasons on demand.

Vault's rules alone give one verdict, as Vault would give it; native rules alone give one: deny if any
matching rule denies, otherwise allow if one allows, otherwise silent. The request is allowed only if
neither verdict is a denial and at least one allows. Vault's "not granted" is silence here, its explicit
``deny`` is a denial, so a policy of one language never takes away what the other grants unless it says so.

Where ``sudo`` is needed, one and the same verdict must grant the capability and ``sudo``.

Policies may be narrowed by those of somebody on whose behalf is asked: then both decide, each as above, and
the request is allowed only if both allow it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from secrethub.policy.acl_matching import AclIndex
from secrethub.policy.capabilities import BITS, DENY, Capability, names
from secrethub.policy.conditions import Circumstances
from secrethub.policy.document import ParsedPolicy
from secrethub.policy.matching import NativeIndex, NativeRule

_SUDO = BITS["sudo"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """May this identity do that?

    Attributes:
        path: the canonical request path, e.g. ``secret/data/prod/db``.
        acl_capability: what Vault's rules must grant, from the method.
        needs_sudo: whether ``sudo`` is needed too.
        when: what conditions are about; None when nothing is known.
        native_path: the path as native rules name it, e.g. ``secrets/prod/db``.
        native_capability: what native rules must grant, from the declared operation.
    """

    path: str
    acl_capability: Capability
    native_path: str
    native_capability: Capability
    needs_sudo: bool = False
    when: Circumstances | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One rule that took part in a decision.

    Attributes:
        language: of the rule.
        policy: the policy it is from.
        rule: its path as written.
        effect: what it said about this question.
        capabilities: what it names.
        failing: the condition that keeps it from holding, or empty.
    """

    language: Literal["native", "acl", "builtin"]
    policy: str
    rule: str
    effect: Literal["allow", "deny", "silent"]
    capabilities: tuple[str, ...]
    failing: str = ""


class CompiledPolicies:
    """The policies of one identity, ready to decide. Immutable.

    Attributes:
        names: of the policies.
        root: whether everything is allowed.
        narrowing: policies that must allow it as well, and whose they are; None when these decide alone.
    """

    __slots__ = ("_fixed", "acl", "names", "narrowing", "native", "root")

    def __init__(self, parsed: Sequence[ParsedPolicy], *, root: bool) -> None:
        self.names = tuple(policy.name for policy in parsed)
        self.root = root
        self.narrowing: tuple[str, CompiledPolicies] | None = None
        self._fixed = {
            *(
                _fixed_part(rule.path)
                for policy in parsed
                for rule in policy.acl
                if rule.capabilities and not rule.capabilities & DENY
            ),
            *(
                _fixed_part(path)
                for policy in parsed
                for statement in policy.statements
                if statement.effect == "allow"
                for path in statement.paths
            ),
        }
        self.acl = AclIndex(
            [
                (policy.name, rule.path, rule.capabilities, rule.narrowing)
                for policy in parsed
                for rule in policy.acl
            ]
        )
        self.native = NativeIndex(
            [
                NativeRule(
                    policy.name,
                    path,
                    statement.effect == "deny",
                    statement.capabilities,
                    statement.conditions,
                )
                for policy in parsed
                for statement in policy.statements
                for path in statement.paths
            ]
        )

    def __repr__(self) -> str:
        return f"CompiledPolicies(names={self.names!r}, root={self.root!r})"

    def narrowed(self, holder: str, policies: CompiledPolicies) -> CompiledPolicies:
        """Return these policies, where those of ``holder`` must allow what is asked as well."""
        both = copy.copy(self)
        both.narrowing = (holder, policies)
        return both

    def reaches(self, prefix: str) -> bool:
        """Tell whether some rule grants something below ``prefix``: who may see that it exists."""
        if self.narrowing is not None and not self.narrowing[1].reaches(prefix):
            return False
        return self.root or any(
            fixed.startswith(prefix) or (open_ended and prefix.startswith(fixed))
            for fixed, open_ended in self._fixed
        )


class Allowed(msgspec.Struct, frozen=True):
    """Yes. ``conditional``: at another time, or asked in another way, it may be no."""

    question: Question
    policies: CompiledPolicies
    conditional: bool = False

    @property
    def trace(self) -> tuple[Step, ...]:
        """The rules that matched, of all who had to allow, worked out when asked for."""
        own = _trace(self.question, self.policies)
        narrowing = self.policies.narrowing
        return own if narrowing is None else own + _trace(self.question, narrowing[1])


class Denied(msgspec.Struct, frozen=True):
    """No. ``holder``: whose policies said so, where they are not those of whoever asks."""

    question: Question
    policies: CompiledPolicies
    holder: str = ""

    @property
    def trace(self) -> tuple[Step, ...]:
        """The rules that matched, worked out when asked for."""
        return _trace(self.question, self.policies)

    @property
    def reason(self) -> str:
        """Why, for the ledger and for people who may know."""
        whose = f"{self.holder}: " if self.holder else ""
        for step in self.trace:
            if step.effect == "deny":
                return f"{whose}denied by policy {step.policy}, rule {step.rule}"
        wanted = self.question.native_capability
        sudo = " with sudo" if self.question.needs_sudo else ""
        unmet = next((step for step in self.trace if step.failing), None)
        why = (
            ""
            if unmet is None
            else f"; {unmet.failing} of policy {unmet.policy}, rule {unmet.rule}, does not hold"
        )
        return f"{whose}no policy allows {wanted}{sudo}{why}"


def _fixed_part(path: str) -> tuple[str, bool]:
    """Return what comes before the first wildcard of a rule's path, and whether there is one."""
    fixed = re.split(r"[*+]", path, maxsplit=1)[0]
    return fixed, fixed != path


Decision: TypeAlias = Allowed | Denied


def compile_policies(
    parsed: Sequence[ParsedPolicy], *, root: bool = False, values: Mapping[str, str] | None = None
) -> CompiledPolicies:
    """Bring the policies of one identity into the form that decisions are made from.

    Args:
        parsed: in any order; the order has no influence.
        root: whether the identity has ``root``, which allows everything.
        values: what placeholders stand for, as far as it is known.
    """
    return CompiledPolicies([policy.said_to(values or {}) for policy in parsed], root=root)


def decide(question: Question, policies: CompiledPolicies) -> Decision:
    """Decide. Deny by default; the trace is the same evaluation, never a second one."""
    verdict = _alone(question, policies)
    if policies.narrowing is None or isinstance(verdict, Denied):
        return verdict
    holder, narrowing = policies.narrowing
    also = _alone(question, narrowing)
    if isinstance(also, Denied):
        return Denied(question, narrowing, holder)
    return Allowed(question, policies, verdict.conditional or also.conditional)


def _alone(question: Question, policies: CompiledPolicies) -> Decision:
    """Return the verdict of these policies, whatever narrows them."""
    if policies.root:
        return Allowed(question, policies)
    sudo = _SUDO if question.needs_sudo else 0
    needed = BITS[question.acl_capability] | sudo
    entry = policies.acl.find(question.path, listing=question.acl_capability == "list")
    granted = 0 if entry is None else entry.capabilities
    if granted & DENY:
        return Denied(question, policies)
    narrowed = entry is not None and entry.narrowing is not None
    if narrowed and entry is not None and entry.failing(question.acl_capability, question.when) is not None:
        granted = 0
    needed_native = BITS[question.native_capability] | sudo
    listing = question.native_capability == "list"
    allowed, denied, conditional = policies.native.bits(question.native_path, question.when, listing=listing)
    if question.path != question.native_path:
        # A denial that is written with the endpoint's path must not be the one that protects nothing.
        also = policies.native.bits(question.path, question.when, listing=listing)
        denied, conditional = denied | also.denied, conditional or also.conditional
    if denied & needed_native:
        return Denied(question, policies)
    if granted & needed == needed or allowed & needed_native == needed_native:
        return Allowed(question, policies, narrowed or conditional)
    return Denied(question, policies)


def _trace(question: Question, policies: CompiledPolicies) -> tuple[Step, ...]:
    if policies.root:
        return (Step(language="builtin", policy="root", rule="**", effect="allow", capabilities=("*",)),)
    sudo = _SUDO if question.needs_sudo else 0
    steps = []
    entry = policies.acl.find(question.path, listing=question.acl_capability == "list")
    for policy, bits in () if entry is None else entry.sources:
        assert entry is not None
        failing = "" if bits & DENY else entry.failing(question.acl_capability, question.when) or ""
        speaks = bits & (BITS[question.acl_capability] | sudo) and not failing
        effect: Literal["allow", "deny", "silent"] = "allow" if speaks else "silent"
        if bits & DENY:
            effect = "deny"
        steps.append(
            Step(
                language="acl",
                policy=policy,
                rule=entry.path,
                effect=effect,
                capabilities=names(bits),
                failing=failing,
            )
        )
    listing = question.native_capability == "list"
    matching = list(policies.native.matching(question.native_path, listing=listing))
    if question.path != question.native_path:
        also = policies.native.matching(question.path, listing=listing)
        matching += [rule for rule in also if rule.denies and rule not in matching]
    for rule in matching:
        failing = rule.failing(question.when) or ""
        speaks = rule.capabilities & (BITS[question.native_capability] | sudo) and not failing
        effect = "silent" if not speaks else "deny" if rule.denies else "allow"
        steps.append(
            Step(
                language="native",
                policy=rule.policy,
                rule=rule.path,
                effect=effect,
                capabilities=names(rule.capabilities),
                failing=failing,
            )
        )
    return tuple(steps)
