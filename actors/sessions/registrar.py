"""Keeps the cluster's SessionDirectory informed of this process's sessions, in the background.

Nothing on a request's way waits for it: sessions come and go here at once, and one task tells the
directory when it can be reached. A directory that has restarted is given everything again, and so
it is now and then anyway, for the answer names sessions that lost to a newer one elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actors.session_directory import Place
from secrethub.clock import Clock, micros
from secrethub.errors import SecretHubError

_log = logging.getLogger(__name__)

_REFRESH_EVERY = 8
"""Every so many heartbeats everything is registered anew."""
_TOGETHER = 0.1
"""Seconds in which comings and goings are collected."""
_FEW = 16
"""Up to so many are told one by one, more of them as one refresh."""


class DirectoryHandle(Protocol):
    """The way to the SessionDirectory."""

    async def call(self, method: str, *args: object, timeout: float = 10.0) -> Any:
        """Call it. Raises Unavailable when it cannot be reached."""
        ...


class Registrar:
    """What the directory should know of this gateway.

    Attributes:
        gateway: this process, unique in the cluster.
    """

    def __init__(
        self,
        directory: Callable[[], DirectoryHandle],
        *,
        gateway: str,
        node: str,
        clock: Clock,
        replaced: Callable[[str, str], None],
        heartbeat: float = 8.0,
    ) -> None:
        """Prepare.

        Args:
            directory: gives the way to the directory.
            gateway: name of this process, unique in the cluster.
            node: name of its node.
            clock: time.
            replaced: called with agent and session id when a newer session is known elsewhere.
            heartbeat: seconds between signs of life, well below the silence after which the
                directory forgets a gateway.
        """
        self.gateway = gateway
        self._directory = directory
        self._node = node
        self._clock = clock
        self._replaced = replaced
        self._heartbeat = heartbeat
        self._places: dict[str, Place] = {}
        self._come: dict[str, Place] = {}
        self._left: dict[str, Place] = {}
        self._number = 0
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"Registrar(gateway={self.gateway!r}, sessions={len(self._places)})"

    def come(self, agent_id: str) -> str:
        """Take note of a new session; return its id, unique in the cluster."""
        self._number += 1
        place = Place(
            agent_id=agent_id,
            session_id=f"{self.gateway}/{self._number}",
            gateway=self.gateway,
            node=self._node,
            since=micros(self._clock.now()),
        )
        self._places[agent_id] = self._come[agent_id] = place
        self._left.pop(agent_id, None)
        self._news.set()
        return place.session_id

    def leave(self, agent_id: str, session_id: str) -> None:
        """Take note that a session ended; one that was replaced here changes nothing."""
        place = self._places.get(agent_id)
        if place is None or place.session_id != session_id:
            return
        del self._places[agent_id]
        self._come.pop(agent_id, None)
        self._left[agent_id] = place
        self._news.set()

    async def run(self) -> None:
        """Tell the directory for ever."""
        beats = 0
        known = False
        while True:
            try:
                if not known or beats >= _REFRESH_EVERY or len(self._come) + len(self._left) > _FEW:
                    await self._refresh()
                    known, beats = True, 0
                else:
                    await self._tell_changes()
                    known = bool(await self._call("heartbeat", self.gateway))
                    beats += 1
                    if not known:
                        continue
            except SecretHubError as exc:
                # The directory is away; it matters for nothing that cannot wait.
                _log.info("the session directory does not answer: %s", exc.code)
                known = False
                await asyncio.sleep(self._heartbeat / 4)
                continue
            await self._pause()

    async def _pause(self) -> None:
        try:
            # Not wait_for(), which loses a cancellation that comes together with the event.
            async with asyncio.timeout(self._heartbeat):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()
        await asyncio.sleep(_TOGETHER)

    async def _tell_changes(self) -> None:
        while self._left:
            agent_id, place = next(iter(self._left.items()))
            await self._call("forget", agent_id, place.session_id)
            if self._left.get(agent_id) is place:
                del self._left[agent_id]
        while self._come:
            agent_id, place = next(iter(self._come.items()))
            lost = await self._call("register", place)
            if self._come.get(agent_id) is place:
                del self._come[agent_id]
            self._tell_lost(() if lost is None else (lost,))

    async def _refresh(self) -> None:
        self._come.clear()
        self._left.clear()
        self._tell_lost(await self._call("refresh", self.gateway, tuple(self._places.values())))

    def _tell_lost(self, places: Iterable[Place]) -> None:
        for place in places:
            if place.gateway == self.gateway:
                self._replaced(place.agent_id, place.session_id)

    async def _call(self, method: str, *args: object) -> Any:
        return await self._directory().call(method, *args)
