"""Telling connected agents that there is a command to be run.

A step that waits for an agent is stored in its rotation's row after the order was, so that row's change says
that there may be one, also when the step is tried again. The table of orders is looked at then; it is as good
as empty. An agent that connects asks by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from actors.sessions.supervisor import SessionSupervisor
from secrethub.errors import SecretHubError
from secrethub.storage import agent_orders
from secrethub.storage.authority import ROTATIONS
from secrethub.storage.database import Database
from secrethub.storage.freshness import Caches, Changed

_PACE_SECONDS = 0.1
"""Between two looks, where rotations change without a pause."""
_AGAIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


class OrderWatch:
    """Tells the agents of one process. Nothing is decided by it, and an order told of twice harms nobody."""

    def __init__(self, database: Database, caches: Caches, *, pause: float) -> None:
        """Prepare.

        Args:
            database: which has the orders.
            caches: which hear of changes.
            pause: seconds between two looks where no change was heard of.
        """
        self._database = database
        self._pause = pause
        self._heard = asyncio.Event()
        self._unsubscribe: Callable[[], None] = caches.subscribe(self._announced)
        caches.on_flush(self._heard.set)

    def close(self) -> None:
        """Hear of nothing any more."""
        self._unsubscribe()

    def _announced(self, change: Changed) -> None:
        if change.key.startswith(ROTATIONS.name + "/"):
            self._heard.set()

    async def run(self, sessions: SessionSupervisor) -> None:
        """Tell agents until cancelled."""
        while True:
            # Not wait_for(), which loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._heard.wait()
            self._heard.clear()
            if len(sessions) and not await self._told(sessions):
                self._heard.set()
                await asyncio.sleep(_AGAIN_SECONDS)
            await asyncio.sleep(_PACE_SECONDS)

    async def _told(self, sessions: SessionSupervisor) -> bool:
        """Look once; tell whether that could be done."""
        try:
            async with self._database.read() as connection:
                agents = await agent_orders.waiting(connection)
        except SecretHubError as exc:
            _log.warning("agents cannot be told of orders now: %s", exc.code)
            return False
        for agent in agents:
            session = sessions.find(agent)
            if session is not None:
                session.order()
        return True
