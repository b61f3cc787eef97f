"""HTTP/1.1 over a Unix socket: listening, limits, one request after the other. Not what they mean.

The socket appears under its name with its final owner and mode: it is bound in a private directory
beside it and renamed. A socket that nobody listens on any more is replaced; one that answers is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agent import files, http1, peers
from agent.grants import Peer
from agent.http1 import RequestHead
from agent.settings import SocketSettings
from secrethub.errors import Conflict, InvalidRequest, Misconfigured, PermissionDenied, TooLarge

MOST_CONNECTIONS = 256
"""Connections at a time."""
MOST_PER_USER = 64
"""Connections of one user at a time, so that one cannot lock out the others."""
HEAD_TIMEOUT = 30.0
"""Seconds a connection may be idle, and a head may take."""
REFUSAL_TIMEOUT = 1.0
"""Seconds to wait for the request of a connection that is one too many."""
WRITE_TIMEOUT = 10.0
"""Seconds a client may take to receive its answer."""
LARGEST_BODY = 64 * 1024
"""Bytes of a body, which is read and thrown away."""
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer. ``body`` is JSON."""

    status: int
    body: bytes = field(repr=False)


Handler = Callable[[Peer | None, RequestHead], Awaitable[Reply]]
"""Answers a request of a peer; None when nothing is known of the peer."""


def failure(status: int, code: str, *messages: str) -> Reply:
    """Return an error in the shape that clients expect."""
    return Reply(status=status, body=msgspec.json.encode({"errors": messages, "code": code}))


class SocketServer:
    """Serves one socket.

    Args:
        handler: answers requests.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._clients: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._per_user: Counter[int | None] = Counter()

    async def run(self, listening: socket.socket) -> None:
        """Serve until cancelled."""
        # From 3.13 on asyncio would remove the socket at the path it was bound to; it was moved since.
        kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        server = await asyncio.start_unix_server(
            self._begin, sock=listening, limit=http1.LONGEST_HEAD, **kept
        )
        async with server:
            try:
                await server.serve_forever()
            finally:
                for client in self._clients:
                    client.cancel()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio's takes its being cancelled for a defect.
        task = asyncio.create_task(self._serve(reader, writer), name="local-client")
        self._clients.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._clients.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            _log.error("a local connection failed", exc_info=defect)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer(writer)
        user = None if peer is None else peer.uid
        try:
            if self._connections >= MOST_CONNECTIONS or self._per_user[user] >= MOST_PER_USER:
                async with asyncio.timeout(REFUSAL_TIMEOUT):
                    # The request is taken first: closing over it would take the answer with it.
                    await reader.readuntil(b"\r\n\r\n")
                await _answer(writer, failure(429, "too_many_requests", "too many connections"), keep=False)
                return
            self._connections += 1
            self._per_user[user] += 1
            try:
                while await self._turn(peer, reader, writer):
                    pass
            finally:
                self._connections -= 1
                self._per_user[user] -= 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _log.debug("a local client went away")
        finally:
            writer.close()

    async def _turn(
        self, peer: Peer | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; tell whether another may follow on this connection."""
        try:
            head = await _receive(reader)
        except (TooLarge, asyncio.LimitOverrunError):
            await _answer(writer, failure(431, "too_large", "the request is too large"), keep=False)
            return False
        except InvalidRequest as exc:
            await _answer(writer, failure(400, exc.code, exc.message), keep=False)
            return False
        if head is None:
            return False
        reply = await self._handler(peer, head)
        await _answer(writer, reply, keep=head.keep_alive, with_body=head.method != "HEAD")
        return head.keep_alive


@contextlib.contextmanager
def listen(settings: SocketSettings) -> Iterator[socket.socket]:
    """Put a listening socket in place; remove it at the end of the block.

    Raises:
        Conflict: somebody listens there already.
        Misconfigured: the place is not safe, or taken by something else.
    """
    folder, name = files.split(settings.path)
    with contextlib.suppress(OSError):  # what is wrong shows when it is opened
        folder.mkdir(mode=0o755, exist_ok=True)
    with files.directory(folder) as at:
        status = os.fstat(at)
        if status.st_uid not in {0, os.geteuid()}:
            raise Misconfigured(f"{folder} belongs to uid {status.st_uid}, neither root nor the agent")
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise Misconfigured(f"{folder} can be written by everybody")
        _check_free(settings.path, at, name)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _put_in_place(listening, settings, at, name)
            ours = os.stat(name, dir_fd=at, follow_symlinks=False)
            listening.listen(MOST_CONNECTIONS)
            listening.setblocking(False)
            try:
                yield listening
            finally:
                with contextlib.suppress(OSError):
                    if os.path.samestat(os.stat(name, dir_fd=at, follow_symlinks=False), ours):
                        files.remove(at, name)
        finally:
            listening.close()


def _check_free(path: Path, at: int, name: str) -> None:
    try:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise Misconfigured(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(f"/proc/self/fd/{at}/{name}")
        except (ConnectionRefusedError, FileNotFoundError):
            return  # left behind by a process that is gone
        except OSError as exc:
            raise Misconfigured(f"{path} cannot be examined: {exc.strerror}") from exc
    raise Conflict(f"another process listens on {path}")


def _put_in_place(listening: socket.socket, settings: SocketSettings, at: int, name: str) -> None:
    private = tempfile.mkdtemp(prefix=".secrethub-", dir=f"/proc/self/fd/{at}")
    try:
        inner = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By descriptor: the path of a Unix socket must be short.
            listening.bind(f"/proc/self/fd/{inner}/s")
            uid = -1 if settings.uid is None else settings.uid
            gid = -1 if settings.gid is None else settings.gid
            os.chown("s", uid, gid, dir_fd=inner)
            os.chmod("s", settings.mode, dir_fd=inner)
            os.rename("s", name, src_dir_fd=inner, dst_dir_fd=at)
        finally:
            os.close(inner)
    except OSError as exc:
        raise Misconfigured(f"{settings.path} cannot be made: {exc.strerror}") from exc
    finally:
        shutil.rmtree(private)


def _peer(writer: asyncio.StreamWriter) -> Peer | None:
    connection = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    with connection:
        try:
            return peers.identify(connection)
        except PermissionDenied as exc:
            _log.warning("an unknown local process connected", extra={"error": exc.reason})
            return None


async def _receive(reader: asyncio.StreamReader) -> RequestHead | None:
    """Read one request and throw its body away; None at the end of the connection."""
    async with asyncio.timeout(HEAD_TIMEOUT):
        try:
            head = http1.parse_request(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                raise
            return None
        if http1.is_chunked(head.headers):
            raise InvalidRequest("send no body, or one of known length")
        length = http1.content_length(head.headers) or 0
        if length > LARGEST_BODY:
            raise TooLarge("the body is too large")
        await reader.readexactly(length)
        return head


async def _answer(writer: asyncio.StreamWriter, reply: Reply, *, keep: bool, with_body: bool = True) -> None:
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\n"
        "Content-Type: application/json\r\n"
        "Cache-Control: no-store\r\n"
        f"Content-Length: {len(reply.body)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    writer.write(head.encode("ascii") + (reply.body if with_body else b""))
    async with asyncio.timeout(WRITE_TIMEOUT):
        await writer.drain()
