"""Writing down what agents say: which secrets they use, which versions they confirm, how their files are.

What is new of an agent and a secret joins what waits already, so however much is said while the database is
away, no more is kept than one note for each watch and one report for each agent.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from secrethub.errors import SecretHubError
from secrethub.storage import agent_reports, agent_watches
from secrethub.storage.agent_reports import Report
from secrethub.storage.agent_watches import Use
from secrethub.storage.database import Database

_BATCH = 500
_AGAIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class UsesWriter:
    """Collects what sessions say and writes it, some hundred notes in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, str], Use] = {}
        self._reports: dict[str, Report] = {}
        self._new = asyncio.Event()

    def watched(self, agent: str, key: str, session: str) -> None:
        """An agent watches a secret."""
        before = self._waiting.get((agent, key))
        version = None if before is None else before.version
        self._add(Use(agent=agent, key=key, session=session, watched=True, version=version))

    def unwatched(self, agent: str, key: str, session: str) -> None:
        """An agent has ended a watch, or may not have it any more."""
        self._add(Use(agent=agent, key=key, session=session, gone=True))

    def confirmed(self, agent: str, key: str, session: str, version: int) -> None:
        """An agent says that it uses a version; without a watch that says nothing."""
        before = self._waiting.get((agent, key)) or Use(agent=agent, key=key, session=session)
        self._add(msgspec.structs.replace(before, version=version))

    def reported(self, agent: str, report: Report) -> None:
        """An agent says how its files are."""
        self._reports[agent] = report
        self._new.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._new.wait()
            places = list(self._waiting)[:_BATCH]
            batch = [self._waiting.pop(place) for place in places]
            told = list(self._reports)[:_BATCH]
            reports = [(agent, self._reports.pop(agent)) for agent in told]
            if not self._waiting and not self._reports:
                self._new.clear()
            try:
                async with self._database.write() as connection:
                    await agent_watches.write(connection, batch)
                    await agent_reports.write(connection, reports)
            except SecretHubError as exc:
                _log.warning("what agents use could not be written down yet: %s", exc.code)
                for place, use in zip(places, batch, strict=True):
                    self._waiting.setdefault(place, use)
                for agent, report in reports:
                    self._reports.setdefault(agent, report)
                self._new.set()
                await asyncio.sleep(_AGAIN_SECONDS)

    def _add(self, use: Use) -> None:
        self._waiting[use.agent, use.key] = use
        self._new.set()
