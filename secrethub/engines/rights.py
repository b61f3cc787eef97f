"""Policies by name, compiled once for every set of names that some identity has."""

from __future__ import annotations

from collections import OrderedDict

from secrethub.policy.builtin import ROOT, WRAPPING, WRAPPING_POLICY_SOURCE
from secrethub.policy.decision import CompiledPolicies, compile_policies
from secrethub.policy.document import ParsedPolicy, parse_policy
from secrethub.storage.authority import POLICIES, Authority
from secrethub.storage.freshness import Caches, Changed

_SETS = 10_000


class PolicyCache:
    """Compiled policy sets, dropped when a policy changes."""

    def __init__(self, authority: Authority, caches: Caches) -> None:
        self._authority = authority
        self._caches = caches
        self._sets: OrderedDict[tuple[str, ...], CompiledPolicies] = OrderedDict()
        caches.subscribe(self._announced)
        caches.on_flush(self.drop)

    def _announced(self, change: Changed) -> None:
        if change.key.startswith("policies/") and change.kind != "kv":
            self._sets.clear()

    def drop(self) -> None:
        """Forget every compiled set."""
        self._sets.clear()

    async def read(self, name: str) -> ParsedPolicy | None:
        """Return one policy, verified, or None.

        Raises:
            IntegrityFailure: its row is not authentic.
        """
        if name == WRAPPING:
            return parse_policy(name, WRAPPING_POLICY_SOURCE)
        row = await self._authority.get(POLICIES, name)
        return None if row is None else parse_policy(name, row.body["source"])

    async def compiled(self, names: tuple[str, ...]) -> CompiledPolicies:
        """Return the compiled set for ``names``; a name without a policy grants nothing.

        Raises:
            IntegrityFailure: a policy's row is not authentic.
        """
        found = self._sets.get(names)
        if found is not None:
            return found
        moves = self._caches.authority_moves
        parsed = []
        for name in names:
            if name == ROOT:
                continue
            policy = await self.read(name)
            if policy is not None:
                parsed.append(policy)
        compiled = compile_policies(parsed, root=ROOT in names)
        if moves == self._caches.authority_moves:
            self._sets[names] = compiled
            if len(self._sets) > _SETS:
                self._sets.popitem(last=False)
        return compiled
