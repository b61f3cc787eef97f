"""The door of the agents: TLS 1.3, a client certificate required, many connections at once.

Connections are accepted only as fast as TLS handshakes get done; the rest waits in the kernel's
queue, and beyond that in the agents, whose TCP tries again. One sweep cuts off handshakes that do
not come to an end and closes that are not answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from actors.sessions.ports import Peer
from actors.sessions.session import AgentSession
from serve.agent_gateway.connection import AgentConnection, Refused

_log = logging.getLogger(__name__)

_HANDSHAKES = 512
"""TLS handshakes at the same time."""
_PER_ADDRESS = 384
"""Of these, from one address: a whole site behind one address gets in, and yet nobody who opens
connections and says nothing keeps all others out."""
_TLS_SECONDS = 5.0
_OPEN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_SWEEP_SECONDS = 0.5
_BACKLOG = 1024
_OTHER_FILES = 1024


class Gate(Protocol):
    """Who decides about agents."""

    def enter(self, certificate: bytes, address: str) -> Peer | Refused:
        """Decide before the WebSocket is accepted, and say who it is."""
        ...

    def entered(self, connection: AgentConnection, peer: Peer) -> AgentSession:
        """Start a session."""
        ...


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has the port but does not listen yet.

    Several processes may share the port (``SO_REUSEPORT``); connections come only to those of them
    that listen.

    Raises:
        OSError: the address is not to be had.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def allow_descriptors(connections: int) -> None:
    """Let this process open that many connections beside everything else, as far as it may.

    Systems commonly start processes with a soft limit of 1,024 open files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft >= wanted:
        return
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, given), hard))
    if given < wanted:
        _log.warning("open files are limited to %d: not all of %d agents could connect", given, connections)


class AgentListener:
    """Accepts connections on one socket and keeps them.

    Attributes:
        context: of TLS; may be replaced at any time, for connections made afterwards.
    """

    def __init__(
        self, bound: socket.socket, context: ssl.SSLContext, gate: Gate, failed: Callable[[str], None]
    ) -> None:
        """Prepare.

        Args:
            bound: from :func:`bind`; closed by :meth:`stop_accepting`.
            context: of TLS.
            gate: decides about agents.
            failed: told why a TLS handshake failed, for counting.
        """
        self.context = context
        self._socket = bound
        self._gate = gate
        self._failed = failed
        self._free = asyncio.Semaphore(_HANDSHAKES)
        self._shaking: set[asyncio.Task[None]] = set()
        self._from: Counter[str] = Counter()
        self._connections: set[AgentConnection] = set()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._deadlines: dict[AgentConnection, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"AgentListener(port={self.port}, connections={len(self._connections)})"

    @property
    def port(self) -> int:
        """The port, 0 once closed."""
        return 0 if self._socket.fileno() < 0 else int(self._socket.getsockname()[1])

    @property
    def healthy(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def start(self) -> None:
        """Begin to listen and to accept."""
        self._socket.listen(_BACKLOG)
        self._tasks = [
            asyncio.create_task(self._accept(), name="agents-accept"),
            asyncio.create_task(self._sweep(), name="agents-sweep"),
        ]

    async def stop_accepting(self) -> None:
        """Accept nothing more; what is connected stays."""
        if self._tasks:
            self._tasks[0].cancel()
            await asyncio.wait(self._tasks[:1])
        self._socket.close()

    async def close(self) -> None:
        """Cut every connection that is left."""
        await self.stop_accepting()
        for task in (*self._tasks, *self._shaking):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._shaking, return_exceptions=True)
        self._tasks = []
        for connection in tuple(self._connections):
            connection.abort()
        async with asyncio.timeout(_CLOSE_SECONDS):
            await self._emptied.wait()

    # What connections tell

    def opened(self, connection: AgentConnection) -> None:
        """Expect the WebSocket handshake soon."""
        self._connections.add(connection)
        self._emptied.clear()
        self._deadlines[connection] = asyncio.get_running_loop().time() + _OPEN_SECONDS

    def enter(self, connection: AgentConnection, certificate: bytes, address: str) -> Peer | Refused:
        """Ask the gate; a refused connection should be gone soon."""
        decision = self._gate.enter(certificate, address)
        if isinstance(decision, Refused):
            self.closing(connection)
        return decision

    def entered(self, connection: AgentConnection, peer: Peer) -> AgentSession:
        """Expect nothing more: from here on the session looks after time."""
        self._deadlines.pop(connection, None)
        return self._gate.entered(connection, peer)

    def closing(self, connection: AgentConnection) -> None:
        """Expect the end soon."""
        if connection in self._connections:
            limit = asyncio.get_running_loop().time() + _CLOSE_SECONDS
            self._deadlines[connection] = min(limit, self._deadlines.get(connection, limit))

    def closed(self, connection: AgentConnection) -> None:
        """Forget the connection."""
        self._connections.discard(connection)
        self._deadlines.pop(connection, None)
        if not self._connections:
            self._emptied.set()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                accepted, peer = await loop.sock_accept(self._socket)
            except OSError as exc:
                # Out of descriptors, or the other end has gone already.
                self._free.release()
                _log.warning("accepting an agent's connection failed: %s", exc)
                await asyncio.sleep(_SWEEP_SECONDS)
                continue
            except BaseException:
                self._free.release()
                raise
            address = str(peer[0])
            if self._from[address] >= _PER_ADDRESS:
                accepted.close()
                self._free.release()
                self._failed("too_many_handshakes")
                continue
            self._from[address] += 1
            task = asyncio.create_task(self._shake_hands(accepted, address), name="agents-handshake")
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    async def _shake_hands(self, accepted: socket.socket, address: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: AgentConnection(self),
                accepted,
                ssl=self.context,
                ssl_handshake_timeout=_TLS_SECONDS,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except ssl.SSLError as exc:
            self._failed(_tls_failure(exc))
        except (ConnectionError, TimeoutError, OSError):
            self._failed("connection_lost")
        finally:
            self._free.release()
            self._from[address] -= 1
            if not self._from[address]:
                del self._from[address]

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            for connection in [c for c, deadline in self._deadlines.items() if deadline < now]:
                with contextlib.suppress(OSError):
                    connection.abort()


def _tls_failure(exc: ssl.SSLError) -> str:
    """Return one of few words for a failed handshake."""
    reason = exc.reason or ""
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no_certificate"
    if isinstance(exc, ssl.SSLCertVerificationError) or "CERT" in reason:
        return "bad_certificate"
    if reason in {"HTTP_REQUEST", "WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL"}:
        return "no_tls"
    return "tls"
