"""Tells sessions what changed, a batch at a time.

News is kept as state: of several changes of one key only the newest waits. A batch of sessions is
told, then everything else gets its turn, so that ten thousand watchers of one secret do not stop
the loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping

from actors.sessions.session import AgentSession
from actors.sessions.surroundings import Surroundings
from secrethub.errors import PermissionDenied, SecretHubError
from secrethub.wire.close_codes import CloseCode

_BATCH = 500
_CHECKS = 32

AGENTS = "agents/"
"""Prefix of the authority rows that say whether an agent is good at all."""


class Announcer:
    """The way from the stream of changes to the sessions of one process."""

    def __init__(self, around: Surroundings, by_agent: Mapping[str, AgentSession]) -> None:
        """Prepare.

        Args:
            around: with the indexes of who watches what.
            by_agent: the session of each agent, as it is at any time.
        """
        self._around = around
        self._by_agent = by_agent
        self._secrets: dict[str, tuple[int, int]] = {}
        self._rows: dict[str, None] = {}
        self._hole = self._opened = False
        self._waiting = asyncio.Event()

    def secret_changed(self, key: str, version: int, sequence: int) -> None:
        """Take note that a secret changed; its watchers are told soon."""
        self._secrets[key] = (version, sequence)
        self._waiting.set()

    def authority_changed(self, row: str) -> None:
        """Take note that an authority row (``<table>/<key>``) changed."""
        self._around.turns += 1
        self._rows[row] = None
        self._waiting.set()

    def lost_track(self) -> None:
        """Take note that changes may have been missed: everything may have changed."""
        self._around.turns += 1
        self._hole = True
        self._waiting.set()

    def unsealed(self) -> None:
        """Take note that there are keys again: what was refused for want of them may be asked anew."""
        self._opened = True
        self._waiting.set()

    async def run(self) -> None:
        """Tell sessions for ever. A new run begins by telling all, for the last may have lost news."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            rows, self._rows = self._rows, {}
            secrets, self._secrets = self._secrets, {}
            await self._tell_authority(rows)
            if self._opened:
                self._opened = False
                await in_batches(tuple(self._by_agent.values()), AgentSession.change_authority)
            if self._hole:
                self._hole = False
                await self._tell_all()
            for key, (version, sequence) in secrets.items():
                self._around.sequence = max(self._around.sequence, sequence)
                await self._tell_watchers(key, version, sequence)

    async def _tell_watchers(self, key: str, version: int, sequence: int) -> None:
        await in_batches(self._around.secrets.watchers(key), lambda s: s.change(key, version, sequence))

    async def _tell_authority(self, rows: Iterable[str]) -> None:
        named = (self._by_agent.get(row.removeprefix(AGENTS)) for row in rows if row.startswith(AGENTS))
        agents = iter([session for session in named if session is not None])
        while batch := list(itertools.islice(agents, _CHECKS)):
            await asyncio.gather(*(self._check_standing(session) for session in batch))
        for row in rows:
            await in_batches(self._around.authority.watchers(row), AgentSession.change_authority)

    async def _check_standing(self, session: AgentSession) -> None:
        """Close a revoked agent's connection at once, whatever its own task is waiting for."""
        try:
            await self._around.access.standing(session.peer)
        except PermissionDenied:
            session.close(CloseCode.REVOKED, "revoked")
        except SecretHubError:
            session.doubtful = True

    async def _tell_all(self) -> None:
        sequence = self._around.sequence

        def tell(session: AgentSession) -> None:
            session.change_all(sequence)
            session.change_authority()

        await in_batches(tuple(self._by_agent.values()), tell)


async def in_batches(sessions: Iterable[AgentSession], act: Callable[[AgentSession], None]) -> None:
    """Call ``act`` for each, letting everything else run between batches."""
    remaining = iter(sessions)
    while batch := list(itertools.islice(remaining, _BATCH)):
        for session in batch:
            act(session)
        await asyncio.sleep(0)
