"""A second serving process as an operating system process of its own, started by tests.

Its actors are those of the first process, called over a Unix socket: what Ray does between the
processes of a cluster, with the same arguments and the same errors. LeaseManager and RotationScheduler are
beside it, as they are on each node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
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

_LENGTH = 4
_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The door is plain HTTP: no authority is read."""
_ROOT = Path(__file__).parents[2]
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
    child: subprocess.Popen[bytes]
    client: httpx2.AsyncClient

    async def call(self, method: str, path: str, token: str, **options: Any) -> httpx2.Response:
        """Send a request with ``token``."""
        headers = {"X-Vault-Token": token, **options.pop("headers", {})}
        return await self.client.request(method, f"/v1/{path}", headers=headers, **options)

    def stop(self) -> None:
        """Stop it where it stands (SIGSTOP), and return when it does."""
        self.child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.child.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """Let it run again."""
        self.child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without any warning (SIGKILL)."""
        self.child.kill()
        self.child.wait()


@contextlib.asynccontextmanager
async def started(
    settings: NodeSettings, handles: Handles, *, script: str = __file__, words: tuple[str, ...] = ()
) -> AsyncIterator[Second]:
    """Start a second process with the actors of this one; it is gone afterwards.

    Args:
        settings: of its node.
        handles: of this process's actors.
        script: started instead of this file; it calls :func:`main`.
        words: its further arguments.
    """
    folder = Path(settings.run_dir)
    write_node_file(folder / "node.json", settings)
    async with offered(handles, folder / "actors.sock"):
        child = subprocess.Popen(  # noqa: ASYNC220 - it must be possible to stop and kill it
            [sys.executable, script, str(folder / "node.json"), str(folder / "actors.sock"), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            # A script's own folder is searched for modules, not the one it is started in.
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
        try:
            assert child.stdout is not None
            line = await asyncio.wait_for(asyncio.to_thread(child.stdout.readline), _READY_SECONDS)
            assert line == b"ready\n"
            assert settings.http is not None
            async with httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{settings.http.port}", timeout=60, verify=_NOBODY
            ) as client:
                yield Second(settings, child, client)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


async def main(node_file: str, socket: str, kinds: Mapping[str, Engine] | None = None) -> None:
    """Be the second process; ``kinds`` of engine instead of the usual ones."""
    settings = read_node_file(node_file)
    process = Process(settings, SocketHandles(socket), ("gateway",), "second", kinds)
    await process.start()
    lent = LentPlace()
    await lent.lend(process.core)
    workers = [
        asyncio.create_task(actor(node=settings.node, workplace=lent).hold())
        for actor in (LeaseManager, RotationScheduler)
    ]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # The pipe ends when the test process does, however that ends.
    ended: Callable[[], bytes] = sys.stdin.buffer.read
    await asyncio.to_thread(ended)
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    await process.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
