"""Who stands behind an actor of the ledger, and with which policies today.

An entry holds no policies, only who asked. So this is what the actor has now: a token that is gone, or that
never had a row, cannot be asked about any more.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from secrethub.engines.agents.records import agent_policies, load
from secrethub.engines.runtime import Core
from secrethub.engines.token.known import bound_to, life_of
from secrethub.ids import is_uuid
from secrethub.policy.placeholders import AGENT_ID, AGENT_NAME
from secrethub.storage.authority import APPROLES, TOKENS

_DIGITS = 36
"""Characters of a token's digest that an entry shows (``operations/note.py``)."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who asked.

    Attributes:
        policies: names of those that he has today.
        lives: seconds that his token may have had to live in all when he asked, 0 for ever; None for who
            has no token. A renewal since then leaves two answers.
        values: what placeholders stand for.
    """

    policies: tuple[str, ...]
    lives: tuple[int | None, ...]
    values: Mapping[str, str]


class Actors:
    """Looks actors up, each once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[str, Actor | str] = {}

    async def find(self, actor: str) -> Actor | str:
        """Return who it is, or why that cannot be told.

        Raises:
            IntegrityFailure: a row that says so is not authentic.
        """
        known = self._known.get(actor)
        if known is None:
            kind, _, rest = actor.partition(":")
            name = rest.partition(":")[0]
            if kind == "token":
                known = await self._token(name)
            elif kind == "agent":
                known = await self._agent(name)
            else:
                known = "it cannot be told who asked"
            self._known[actor] = known
        return known

    async def _token(self, shown: str) -> Actor | str:
        # Digests are hexadecimal; anything else is not the name of one.
        keys = [
            key
            for key in await self._core.authority.keys(TOKENS, prefix=shown, limit=2)
            if len(shown) == _DIGITS
        ]
        row = await self._core.authority.get(TOKENS, keys[0]) if len(keys) == 1 else None
        if row is None:
            return "the token is gone, and with it which policies it had"
        policies = (*row.body["policies"], *await bound_to(self._core, row))
        return Actor(policies=policies, lives=tuple({int(row.body["ttl"]), life_of(row)}), values={})

    async def _agent(self, agent_id: str) -> Actor | str:
        found = await load(self._core, agent_id) if is_uuid(agent_id) else None
        role = None if found is None else await self._core.authority.get(APPROLES, found[1].role)
        if found is None or role is None or role.body["uuid"] != found[1].role_uuid:
            return "the agent or its role is gone, and with it which policies it had"
        own, bound = await agent_policies(self._core, agent_id, role)
        values = {AGENT_ID: agent_id, AGENT_NAME: found[1].name}
        return Actor(policies=own + bound, lives=(None,), values=values)
