"""Policies by name, compiled once for every set of names that some identity has."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TypeAlias

from secrethub.engines.identity import Identity
from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.policy.builtin import ROOT, WRAPPING, WRAPPING_POLICY_SOURCE
from secrethub.policy.decision import CompiledPolicies, compile_policies
from secrethub.policy.document import ParsedPolicy, parse_policy
from secrethub.policy.placeholders import AGENT_ID, AGENT_NAME
from secrethub.storage.authority import POLICIES, Authority
from secrethub.storage.freshness import Caches, Changed

_SETS = 10_000

Values: TypeAlias = tuple[tuple[str, str], ...]
"""What placeholders stand for."""

_log = logging.getLogger(__name__)


def placeholder_values(identity: Identity) -> Values:
    """Return what placeholders in policies stand for when somebody asks: nothing but for agents."""
    if identity.kind != "agent":
        return ()
    return ((AGENT_ID, identity.key), (AGENT_NAME, identity.name))


class PolicyCache:
    """Compiled policy sets, dropped when a policy changes."""

    def __init__(self, authority: Authority, caches: Caches) -> None:
        self._authority = authority
        self._caches = caches
        self._sets: OrderedDict[tuple[tuple[str, ...], Values], CompiledPolicies] = OrderedDict()
        self._personal: set[tuple[str, ...]] = set()
        """Sets of names that say something else to each agent."""
        self._reported: set[str] = set()
        """Policies of which the log says already that they are not understood."""
        caches.subscribe(self._announced)
        caches.on_flush(self.drop)

    def _announced(self, change: Changed) -> None:
        if change.key.startswith("policies/") and change.kind != "kv":
            self.drop()

    def drop(self) -> None:
        """Forget every compiled set."""
        self._sets.clear()
        self._personal.clear()
        self._reported.clear()

    async def read(self, name: str) -> ParsedPolicy | None:
        """Return one policy, verified, or None.

        Raises:
            InvalidRequest: it is not understood: another version has written it.
            IntegrityFailure: its row is not authentic.
        """
        if name == WRAPPING:
            return parse_policy(name, WRAPPING_POLICY_SOURCE)
        row = await self._authority.get(POLICIES, name)
        try:
            return None if row is None else parse_policy(name, row.body["source"])
        except InvalidRequest as exc:
            raise InvalidRequest(f"the policy {name} is not understood: {exc}") from exc

    async def compiled(self, identity: Identity) -> CompiledPolicies:
        """Return what decides about somebody; a name without a policy grants nothing.

        Where an agent asks for an application, that application's policies decide, too.

        Raises:
            PermissionDenied: a policy is not understood, so it may deny what another allows.
            IntegrityFailure: a policy's row is not authentic.
        """
        own = await self._set(identity, identity.policies)
        application = identity.application
        if application is None:
            return own
        return own.narrowed(application.holder, await self._set(identity, application.policies))

    async def _understood(self, name: str) -> ParsedPolicy | None:
        try:
            return await self.read(name)
        except InvalidRequest as exc:
            if name not in self._reported:
                self._reported.add(name)
                _log.error("%s", exc)
            raise PermissionDenied(str(exc)) from exc

    async def _set(self, identity: Identity, names: tuple[str, ...]) -> CompiledPolicies:
        place = (names, placeholder_values(identity) if names in self._personal else ())
        found = self._sets.get(place)
        if found is not None:
            return found
        moves = self._caches.authority_moves
        parsed = []
        for name in names:
            if name == ROOT:
                continue
            policy = await self._understood(name)
            if policy is not None:
                parsed.append(policy)
        personal = any(policy.personal for policy in parsed)
        values = placeholder_values(identity)
        compiled = compile_policies(parsed, root=ROOT in names, values=dict(values))
        if moves == self._caches.authority_moves:
            if personal:
                self._personal.add(names)
            self._sets[names, values if personal else ()] = compiled
            if len(self._sets) > _SETS:
                self._sets.popitem(last=False)
        return compiled
