"""The agents of ``./dev bench agents``: one process, one asyncio loop, many mutually authenticated clients.

Driven by JSON lines on standard input, answers with JSON lines on standard output. All share one key
pair and have a certificate each. Times are ``time.monotonic()``, which processes of one machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from secrethub.wire import messages as wire
from secrethub.wire.codec import FROM_CORE_LIMIT
from secrethub.wire.session import Session

_TOGETHER = 64
"""Agents that connect at the same time."""
_TRIES = 50


class Agent:
    """One agent: connects, watches one secret, reads it again when told that it changed."""

    def __init__(self, swarm: Swarm, certificate: Path) -> None:
        self._swarm = swarm
        self._context = ssl.create_default_context(cafile=swarm.folder / "ca.pem")
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(certificate, swarm.folder / "key.pem")
        self._session = Session("agent")
        self._ids = iter(range(1, 2**31))
        self.closed: int | None = None

    async def run(self, room: asyncio.Semaphore) -> None:
        """Connect, then listen until the end."""
        async with room:
            socket = await self._connect()
            await self._say(socket, wire.Hello(version="bench", name="bench"))
            await self._hear(socket)
            await self._say(socket, wire.Watch(id=next(self._ids), paths=(self._swarm.path,)))
            await self._hear(socket)
        self._swarm.connected()
        try:
            while True:
                await self._listen(socket)
        except ConnectionClosed:
            self.closed = socket.close_code

    async def _connect(self) -> ClientConnection:
        for _ in range(_TRIES):
            try:
                return await connect(
                    self._swarm.url,
                    ssl=self._context,
                    subprotocols=[wire.SUBPROTOCOL],  # type: ignore[list-item]
                    compression=None,
                    max_size=FROM_CORE_LIMIT,
                    ping_interval=None,
                    open_timeout=60,
                    proxy=None,
                )
            except InvalidStatus as exc:
                self._swarm.sent_away += 1
                later = float(exc.response.headers.get("Retry-After", "1"))
                await asyncio.sleep(later + random.random())
            except (OSError, TimeoutError, InvalidHandshake):
                self._swarm.failed += 1
                await asyncio.sleep(random.random())
        raise RuntimeError("an agent could not connect")

    async def _say(self, socket: ClientConnection, message: wire.Message) -> None:
        await socket.send(self._session.send(message), text=True)

    async def _hear(self, socket: ClientConnection) -> wire.Message:
        return self._session.receive(await socket.recv(decode=False))

    async def _listen(self, socket: ClientConnection) -> None:
        match await self._hear(socket):
            case wire.Ping():
                await self._say(socket, wire.Pong())
            case wire.Changed() as changed:
                self._swarm.told.append(time.monotonic())
                if self._swarm.jitter:
                    await asyncio.sleep(random.random() * self._swarm.jitter)
                await self._say(socket, wire.Read(id=next(self._ids), path=changed.path))
            case wire.Result() as result:
                self._swarm.has_read()
                await self._say(socket, wire.Confirm(path=result.path, version=result.version))
            case wire.Error():
                self._swarm.failed += 1


class Swarm:
    """All agents and what they counted."""

    def __init__(self, url: str, folder: Path, path: str, jitter: float) -> None:
        self.url, self.folder, self.path, self.jitter = url, folder, path, jitter
        self.told: list[float] = []
        self.read: list[float] = []
        self.sent_away = self.failed = 0
        self._connected = 0
        self._all = asyncio.Event()
        self._round = asyncio.Event()
        self._agents: list[Agent] = []
        self._tasks: list[asyncio.Task[None]] = []

    def connected(self) -> None:
        """Count one agent that is connected and watches."""
        self._connected += 1
        if self._connected == len(self._agents):
            self._all.set()

    def has_read(self) -> None:
        """Count one agent that has read again."""
        self.read.append(time.monotonic())
        if len(self.read) == len(self._agents):
            self._round.set()

    async def connect(self) -> dict[str, Any]:
        """Connect everybody."""
        self._agents = [Agent(self, file) for file in sorted(self.folder.glob("agent-*.pem"))]
        room = asyncio.Semaphore(_TOGETHER)
        started = time.monotonic()
        self._tasks = [asyncio.create_task(agent.run(room)) for agent in self._agents]
        waiting = asyncio.create_task(self._all.wait())
        await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                task.result()
        await waiting
        seconds = time.monotonic() - started
        return {"seconds": seconds, "sent_away": self.sent_away, "failed": self.failed}

    async def collect(self, seconds: float) -> dict[str, Any]:
        """Wait until everybody has been told and has read, and give the times."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._round.wait(), seconds)
        self._round.clear()
        found = {"told": self.told, "read": self.read, "failed": self.failed}
        self.told, self.read = [], []
        return found


async def _main() -> None:
    lines = _lines()
    swarm = Swarm(**{**(first := await asyncio.to_thread(next, lines)), "folder": Path(first["folder"])})
    while (order := await asyncio.to_thread(next, lines, None)) is not None:
        if order["do"] == "connect":
            answer = await swarm.connect()
        else:
            answer = await swarm.collect(order["seconds"])
        print(json.dumps(answer), flush=True)


def _lines() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


if __name__ == "__main__":
    uvloop.run(_main())
