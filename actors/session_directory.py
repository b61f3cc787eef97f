"""SessionDirectory: which agent is connected where. No secrets, nothing stored.

Gateways register their sessions and send a heartbeat. After a restart the directory knows nobody and
says so in its answer to the heartbeat, whereupon each gateway registers all its sessions again; a
gateway that falls silent is forgotten with its sessions.

Time is the clock's; only the order of connections rests on the gateways' wall clocks, and then only
for an agent that is connected twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from actors.tree import SESSION_DIRECTORY
from secrethub.clock import Clock
from secrethub.errors import TooManyRequests


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an agent is connected.

    Attributes:
        agent_id: the agent's UUID.
        session_id: the session's id, unique in the cluster.
        gateway: the process that owns the socket, unique in the cluster.
        node: the node of that process.
        since: µs since the epoch at which the session began, by the gateway's clock.
    """

    agent_id: str
    session_id: str
    gateway: str
    node: str
    since: int

    @property
    def age(self) -> tuple[int, str]:
        """Larger for the newer of two sessions; never equal."""
        return self.since, self.session_id


class SessionDirectory:
    """The present whereabouts of all agents.

    Promise: an agent has at most one place, that of its newest session, whatever the order in which
    registrations arrive. Every call may be repeated.
    """

    def __init__(self, clock: Clock, *, limit: int = 500_000, silence: float = 30.0) -> None:
        """Begin empty.

        Args:
            clock: its monotonic time ages heartbeats.
            limit: agents at most.
            silence: seconds without a heartbeat after which a gateway is forgotten.
        """
        self._clock = clock
        self._limit = limit
        self._silence = silence
        self._places: dict[str, Place] = {}
        self._gateways: dict[str, dict[str, Place]] = {}
        self._heard: dict[str, float] = {}
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return "SessionDirectory()"

    async def register(self, place: Place) -> Place | None:
        """Enter a session.

        Returns:
            The session that has lost, to be closed by its gateway: the agent's older one, or
            ``place`` itself when the agent has a newer one; None when there was no other.

        Raises:
            TooManyRequests: the directory is full.
        """
        self._hear(place.gateway)
        return self._enter(place)

    async def refresh(self, gateway: str, places: Iterable[Place]) -> tuple[Place, ...]:
        """Take ``places`` for all that ``gateway`` has, as after a restart of this directory.

        Returns:
            The sessions that have lost, as in :meth:`register`.

        Raises:
            TooManyRequests: the directory is full.
        """
        self._hear(gateway)
        mine = {place.session_id: place for place in places}
        for known in tuple(self._gateways[gateway].values()):
            if known.session_id not in mine:
                self._drop(known)
        lost = (self._enter(place) for place in mine.values())
        return tuple(place for place in lost if place is not None)

    async def heartbeat(self, gateway: str) -> bool:
        """Say that ``gateway`` lives; False asks it to :meth:`refresh`."""
        self._expire()
        if gateway not in self._gateways:
            return False
        self._hear(gateway)
        return True

    async def forget(self, agent_id: str, session_id: str) -> bool:
        """Strike out a session that ended; False when the agent is elsewhere or nowhere."""
        place = self._places.get(agent_id)
        if place is None or place.session_id != session_id:
            return False
        self._drop(place)
        return True

    async def where(self, agent_id: str) -> Place | None:
        """Return where the agent is connected."""
        self._expire()
        return self._places.get(agent_id)

    async def count(self) -> int:
        """Return how many agents are connected."""
        self._expire()
        return len(self._places)

    async def health(self) -> dict[str, object]:
        """Tell how much is known."""
        return {
            "name": SESSION_DIRECTORY,
            "pid": os.getpid(),
            "agents": len(self._places),
            "gateways": {name: len(places) for name, places in self._gateways.items()},
        }

    async def hold(self) -> None:
        """Forget silent gateways, until closed."""
        while not self._ended.is_set():
            self._expire()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self._silence / 3)

    async def close(self) -> None:
        """End."""
        self._ended.set()

    def _hear(self, gateway: str) -> None:
        self._heard[gateway] = self._clock.monotonic()
        self._gateways.setdefault(gateway, {})

    def _enter(self, place: Place) -> Place | None:
        known = self._places.get(place.agent_id)
        if known is not None and known.session_id != place.session_id:
            if known.age > place.age:
                return place
            self._drop(known)
        elif known is None and len(self._places) >= self._limit:
            raise TooManyRequests("the session directory is full")
        self._places[place.agent_id] = place
        self._gateways[place.gateway][place.agent_id] = place
        return known if known is not None and known.session_id != place.session_id else None

    def _drop(self, place: Place) -> None:
        self._places.pop(place.agent_id, None)
        self._gateways.get(place.gateway, {}).pop(place.agent_id, None)

    def _expire(self) -> None:
        limit = self._clock.monotonic() - self._silence
        for gateway in [name for name, heard in self._heard.items() if heard < limit]:
            del self._heard[gateway]
            for place in self._gateways.pop(gateway).values():
                self._places.pop(place.agent_id, None)
