"""A second serving process as an operating system process of its own, started by tests.

Its actors are those of the first process, called over a Unix socket: what Ray does between the
processes of a cluster, with the same arguments and the same errors. LeaseManager and RotationScheduler are
beside it, as they are on each node.

It is forked by a process that has imported the server once, so it costs no more than its start.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2

from actors.handles import Handles
from actors.lease_manager import LeaseManager
from actors.rotation_scheduler import RotationScheduler
from actors.workplace import LentPlace
from secrethub.engines.engine import Engine
from secrethub.errors import SecretHubError, Unavailable
from secrethub.node import NodeSettings, read_node_file, write_node_file
from serve.wiring import Process
from tests.gateway.forking import FORKING
from tests.http_transport import PlainTransport

_LENGTH = 4
_READY_SECONDS = 60


async def _send(writer: asyncio.StreamWriter, value: object) -> None:
    data = pickle.dumps(value)
    writer.write(len(data).to_bytes(_LENGTH, "big") + data)
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    return pickle.loads(await reader.readexactly(length))


class SocketHandle:
    """One actor of the first process."""

    def __init__(self, path: str, target: str) -> None:
        self._path = path
        self._target = target

    async def call(self, method: str, *args: object, timeout: float = 10.0) -> Any:
        """Call ``method`` there and return its result, or raise what it raised."""
        try:
            async with asyncio.timeout(timeout + 1):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    await _send(writer, (self._target, method, args, timeout))
                    result = await _receive(reader)
                finally:
                    writer.close()
        except (OSError, TimeoutError, EOFError) as exc:
            raise Unavailable(f"{self._target} does not answer") from exc
        if isinstance(result, BaseException):
            raise result
        return result


class SocketHandles:
    """The actors of the first process, by its socket. Every node's key-holder is the first one's."""

    def __init__(self, path: str) -> None:
        self._path = path

    def seal_state(self) -> SocketHandle:
        """Return SealState."""
        return SocketHandle(self._path, "seal_state")

    def key_holder(self, node: str | None = None) -> SocketHandle:  # noqa: ARG002
        """Return the first process's KeyHolder."""
        return SocketHandle(self._path, "key_holder")

    def notary(self) -> SocketHandle:
        """Return AuditNotary."""
        return SocketHandle(self._path, "notary")

    def session_directory(self) -> SocketHandle:
        """Return SessionDirectory."""
        return SocketHandle(self._path, "session_directory")

    def lock(self) -> SocketHandle:
        """Return DistributedLock."""
        return SocketHandle(self._path, "lock")

    async def live_nodes(self) -> list[str]:
        """Return the nodes that have a KeyHolder of their own here: none."""
        return []


@contextlib.asynccontextmanager
async def offered(handles: Handles, path: Path) -> AsyncIterator[None]:
    """Let other processes call the actors behind ``handles`` at a Unix socket."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target, method, args, timeout = await _receive(reader)
        result: object
        try:
            result = await getattr(handles, target)().call(method, *args, timeout=timeout)
        except SecretHubError as exc:
            result = exc
        await _send(writer, result)
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    try:
        yield
    finally:
        server.close()


@dataclass
class Second:
    """The second process and a client of its plain HTTP door."""

    settings: NodeSettings
    child: multiprocessing.process.BaseProcess
    client: httpx2.AsyncClient

    async def call(self, method: str, path: str, token: str, **options: Any) -> httpx2.Response:
        """Send a request with ``token``."""
        headers = {"X-Vault-Token": token, **options.pop("headers", {})}
        return await self.client.request(method, f"/v1/{path}", headers=headers, **options)

    def stop(self) -> None:
        """Stop it where it stands (SIGSTOP), and return when it does."""
        os.kill(self.pid, signal.SIGSTOP)
        while not self.stands_still:
            time.sleep(0.001)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.child.pid is not None
        return self.child.pid

    @property
    def stands_still(self) -> bool:
        """Whether it was stopped. It is no child of this process, so that cannot be waited for."""
        return Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "T"

    def go_on(self) -> None:
        """Let it run again."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without any warning (SIGKILL)."""
        self.child.kill()
        self.child.join()


@contextlib.asynccontextmanager
async def started(
    settings: NodeSettings, handles: Handles, program: Callable[..., None] | None = None, *words: str
) -> AsyncIterator[Second]:
    """Start a second process with the actors of this one; it is gone afterwards.

    Args:
        settings: of its node.
        handles: of this process's actors.
        program: what it does instead of :func:`run`, with the same arguments and then ``words``.
        words: further arguments.
    """
    assert settings.http is not None
    folder = Path(settings.run_dir)
    write_node_file(folder / "node.json", settings)
    async with offered(handles, folder / "actors.sock"):
        heard, tells = FORKING.Pipe(duplex=False)
        given = (tells, str(folder / "node.json"), str(folder / "actors.sock"), *words)
        child = FORKING.Process(target=program or run, args=given)
        child.start()
        tells.close()  # so that the end of the process is heard
        try:
            assert await asyncio.to_thread(heard.poll, _READY_SECONDS)
            heard.recv()
            async with httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{settings.http.port}", timeout=60, transport=PlainTransport()
            ) as client:
                yield Second(settings, child, client)
        finally:
            heard.close()
            child.kill()
            child.join()


def run(ready: Connection, node_file: str, socket: str, kinds: Mapping[str, Engine] | None = None) -> None:
    """Be the second process and say when it is ``ready``; ``kinds`` of engine instead of the usual ones."""
    asyncio.run(_serve(ready, node_file, socket, kinds))


async def _serve(ready: Connection, node_file: str, socket: str, kinds: Mapping[str, Engine] | None) -> None:
    settings = read_node_file(node_file)
    process = Process(settings, SocketHandles(socket), ("gateway",), "second", kinds)
    await process.start()
    lent = LentPlace()
    await lent.lend(process.core)
    workers = [
        asyncio.create_task(actor(node=settings.node, workplace=lent).hold())
        for actor in (LeaseManager, RotationScheduler)
    ]
    ready.send(None)
    tests = multiprocessing.parent_process()
    assert tests is not None
    await asyncio.to_thread(tests.join)  # it ends when they do, however they end
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    await process.stop()
