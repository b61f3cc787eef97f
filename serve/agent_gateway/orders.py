"""Telling connected agents that there is a command to be run.

The table of orders is looked at now and then; it is as good as empty. An agent that connects asks by itself.
"""

from __future__ import annotations

import asyncio
import logging

from actors.sessions.supervisor import SessionSupervisor
from secrethub.errors import SecretHubError
from secrethub.storage import agent_orders
from secrethub.storage.database import Database

_LOOK_SECONDS = 0.25
_AGAIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


async def tell_of_orders(database: Database, sessions: SessionSupervisor) -> None:
    """Tell agents of this process until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if not len(sessions):
            continue
        try:
            async with database.read() as connection:
                agents = await agent_orders.waiting(connection)
        except SecretHubError as exc:
            _log.warning("agents cannot be told of orders now: %s", exc.code)
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        for agent in agents:
            session = sessions.find(agent)
            if session is not None:
                session.order()
