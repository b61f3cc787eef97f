"""A whole server, all actors and doors in one process, that is killed and started again many times.

Each is forked by a process that is forked by one that has imported everything (``forking.py``), so another
server costs no more than its start. That process runs no thread and no loop itself.

A server dies by itself (SIGKILL) where its folder says: right before its n-th commit, by whatever part of it,
once the file ``die`` says so. What a process leaves behind is what it has committed, so the ends of a process
that can be told apart lie between two commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import uvloop
from asyncpg.transaction import Transaction

from actors.local import LocalTree
from actors.wiring import Pulses
from secrethub.node import NodeSettings, read_node_file, write_node_file
from secrethub.storage.ledger_rows import COMMIT
from serve.timing import Timing
from serve.wiring import Process
from tests.gateway.conftest import Caller
from tests.gateway.forking import FORKING
from tests.http_transport import PlainTransport

_READY_SECONDS = 60


@dataclass
class Server(Caller):
    """The server and whoever calls it."""

    mother: Connection
    process: int = -1
    """File descriptor of the server's process: a number may be another one's by now."""

    async def start(self) -> None:
        """Start it; there is none running."""
        self.mother.send(None)
        assert await asyncio.to_thread(self.mother.poll, _READY_SECONDS)
        pid = self.mother.recv()
        self.let_go()
        self.process = os.pidfd_open(pid)

    def let_go(self) -> None:
        """Forget the process."""
        if self.process >= 0:
            os.close(self.process)
            self.process = -1

    def doom(self, number: int) -> None:
        """Let it die right before its ``number``-th commit from now on."""
        folder = Path(self.settings.run_dir)
        (folder / "draft").write_text(f"{number} {time.time_ns()}")
        (folder / "draft").rename(folder / "die")

    async def spared(self) -> bool:
        """Let it live, if it still does; tell whether.

        It may have read just before that it has to die. Whoever answers after that has not.
        """
        (Path(self.settings.run_dir) / "die").unlink(missing_ok=True)
        try:
            await self.call("GET", "sys/seal-status", "")
        except httpx2.TransportError:
            await self.ended()
            return False
        return True

    def kill(self) -> None:
        """End it without any warning."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until it is gone."""
        async with asyncio.timeout(_READY_SECONDS):
            while self.alive:  # noqa: ASYNC110 - it is no child of this process
                await asyncio.sleep(0.01)

    @property
    def alive(self) -> bool:
        """Whether it is there."""
        return not select.select([self.process], [], [], 0)[0]


@contextlib.contextmanager
def _mother(settings: NodeSettings) -> Iterator[Connection]:
    node_file = Path(settings.run_dir) / "node.json"
    write_node_file(node_file, settings)
    ours, its = FORKING.Pipe()
    mother = FORKING.Process(target=bear, args=(its, str(node_file)))
    mother.start()
    its.close()
    try:
        yield ours
    finally:
        ours.close()
        mother.join()


@contextlib.asynccontextmanager
async def mortal(settings: NodeSettings) -> AsyncIterator[Server]:
    """Start a server; it is gone afterwards, however it ended."""
    assert settings.http is not None
    with _mother(settings) as mother:
        url = f"http://127.0.0.1:{settings.http.port}"
        async with httpx2.AsyncClient(base_url=url, timeout=30, transport=PlainTransport()) as client:
            server = Server(settings, client, mother)
            await server.start()
            try:
                yield server
            finally:
                server.kill()
                await server.ended()
                server.let_go()


def _arm(folder: Path) -> None:
    """Let this process die where the folder says."""
    commit, fetch = Transaction.commit, asyncpg.Connection.fetch
    left: dict[str, int] = {}

    def come() -> None:
        try:
            order = (folder / "die").read_text()
        except FileNotFoundError:
            return
        left[order] = left.get(order, int(order.split()[0])) - 1
        if left[order] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def doomed_commit(self: Transaction) -> None:
        come()
        await commit(self)

    async def doomed_fetch(self: asyncpg.Connection[Any], query: str, *args: Any, **how: Any) -> Any:
        if query == COMMIT:  # the ledger's one statement, which is a transaction by itself
            come()
        return await fetch(self, query, *args, **how)

    Transaction.commit, asyncpg.Connection.fetch = doomed_commit, doomed_fetch


async def _serve(settings: NodeSettings, mother: Connection) -> None:
    # Nobody waits for what happens now and then.
    tree = LocalTree(settings, pulses=Pulses(seal_state=0.2, key_holder=0.2))
    await tree.start()
    process = Process(settings, tree.handles, ("gateway", "agents"), "single", timing=Timing(keys=0.1))
    process.core.data_keys.spread = 0
    await process.start()
    await tree.workplace.lend(process.core)
    mother.send(os.getpid())
    await asyncio.Event().wait()


def bear(tests: Connection, node_file: str) -> None:
    """Fork a server each time ``tests`` ask for one, until they close; the last one ends then."""
    settings = read_node_file(node_file)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    _arm(Path(settings.run_dir))
    server = -1
    with contextlib.suppress(EOFError):
        while True:
            tests.recv()
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(_serve(settings, tests))
            if server >= 0:
                os.close(server)
            server = os.pidfd_open(child)
    if server >= 0:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(server, signal.SIGKILL)
