"""The listeners that a gateway replica opens itself: plain HTTP on loopback, HTTPS for the network.

Replicas of one node share their ports (``SO_REUSEPORT``); the node's starter holds a lock file for each
port, so that nobody else's process can join in silently.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from secrethub.node import Listener
from serve.app import Application
from serve.protocol import Protocol, Take
from serve.timing import USUAL, Timing

_DRAIN_SECONDS = 5


class HttpListener:
    """One listening socket and the server behind it."""

    def __init__(
        self,
        application: Application,
        where: Listener,
        *,
        context: ssl.SSLContext | None = None,
        timing: Timing = USUAL,
        take: Take | None = None,
    ) -> None:
        """Prepare; nothing is opened before :meth:`start`.

        Args:
            application: what answers.
            where: host and port.
            context: TLS, or None for plain HTTP.
            timing: how long it waits.
            take: takes those requests whose answers may be at hand.
        """
        self._where = where
        config = uvicorn.Config(
            application,
            # Uvicorn only calls it, to make a connection.
            http=cast("type[Protocol]", self.connections(timing, take)),
            ws="none",
            lifespan="off",
            loop="none",
            # Uvicorn's own set-up would close the handlers that Ray Serve installed.
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            backlog=2048,
        )
        config.load()
        config.ssl = context
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @staticmethod
    def connections(timing: Timing, take: Take | None) -> Callable[..., HttpToolsProtocol]:
        """Return what makes the protocol of a connection.

        Args:
            timing: how long it waits.
            take: takes those requests whose answers may be at hand.
        """
        return partial(Protocol, timing=timing, take=take)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._where.port

    async def start(self) -> None:
        """Open the socket and serve.

        Raises:
            OSError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in self._where.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((self._where.host, self._where.port))
        listening.setblocking(False)
        self._socket = listening
        self._task = asyncio.create_task(
            self._server.serve(sockets=[listening]), name=f"listener-{self._where.port}"
        )
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise OSError(f"the listener on port {self._where.port} ended at once")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop accepting, let requests end, close."""
        if self._task is not None:
            self._server.should_exit = True
            self._server.stopping.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Server(uvicorn.Server):
    """Leaves signals to the process that it lives in, and wakes up for the ``Date`` header only."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        """Set the ``Date`` header each second until told to stop."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield
