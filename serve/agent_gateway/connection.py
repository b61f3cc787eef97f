"""One agent's WebSocket over TLS: the IO around the sans-IO protocol of ``websockets``.

There is neither a task nor a timer here: frames go straight into the agent's session, and the
listener's one sweep ends what takes too long. That keeps a connection small.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import math
import ssl
from dataclasses import dataclass
from typing import Protocol, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from actors.sessions.ports import Peer
from actors.sessions.session import AgentSession
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.codec import TO_CORE_LIMIT
from secrethub.wire.messages import SUBPROTOCOL

_WRITE_LIMIT = 64 * 1024
"""Bytes that may wait to be sent before a session waits too."""
_REASON_LIMIT = 120
"""Bytes of a close reason; a control frame has room for 123 (RFC 6455, 5.5)."""

_quiet = logging.getLogger("secrethub.agents.websocket")
# At DEBUG the library logs whole frames, and frames hold secrets.
_quiet.setLevel(logging.WARNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """An agent is not let in: the HTTP answer that says so."""

    status: http.HTTPStatus
    message: str
    retry_after: float | None = None


class Host(Protocol):
    """Who keeps connections and lets agents in."""

    def opened(self, connection: AgentConnection) -> None:
        """TLS stands; the WebSocket handshake follows."""
        ...

    def enter(self, connection: AgentConnection, certificate: bytes, address: str) -> Peer | Refused:
        """Decide about an agent before its WebSocket is accepted, and say who it is."""
        ...

    def entered(self, connection: AgentConnection, peer: Peer) -> AgentSession:
        """Start the session of an accepted WebSocket."""
        ...

    def closing(self, connection: AgentConnection) -> None:
        """The connection should be gone soon."""
        ...

    def closed(self, connection: AgentConnection) -> None:
        """The connection is gone."""
        ...


class AgentConnection(asyncio.Protocol):
    """A connection, and the ``Transport`` of its session."""

    __slots__ = ("_held", "_host", "_message", "_room", "_session", "_transport", "_ws")

    _transport: asyncio.Transport

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ws = ServerProtocol(
            origins=[None],
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=TO_CORE_LIMIT,
            logger=_quiet,
        )
        self._session: AgentSession | None = None
        self._message: bytearray | None = None
        self._room: asyncio.Future[None] | None = None
        self._held = False

    def __repr__(self) -> str:
        return f"AgentConnection({self._ws.state.name.lower()}, {self._session!r})"

    # The session's side

    async def send(self, frame: bytes) -> None:
        """Send a text message; return once there is room for more.

        Raises:
            ConnectionError: the connection is gone or going.
        """
        try:
            self._ws.send_text(frame)
        except InvalidState:
            raise ConnectionResetError("the connection is closed") from None
        self._flush()
        while self._room is not None:
            await self._room

    def pause(self) -> None:
        """Read nothing more from the socket."""
        self._held = True
        self._read_or_wait()

    def resume(self) -> None:
        """Read again."""
        self._held = False
        self._read_or_wait()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and expect the end; the listener cuts off who does not answer."""
        if self._ws.state is State.OPEN:
            self._ws.send_close(code, reason.encode()[:_REASON_LIMIT].decode(errors="ignore"))
            self._flush()
            # An agent held in its socket could not answer.
            self.resume()
            self._host.closing(self)
        elif self._ws.state is State.CONNECTING:
            self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    # The event loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS stands: the certificate is verified."""
        # uvloop's transports have the methods of asyncio's without being derived from them.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_LIMIT)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes off the wire."""
        if self._ws.reader.eof:
            return
        self._ws.receive_data(data)
        self._flush()
        for event in self._ws.events_received():
            if isinstance(event, Request):
                self._shake_hands(event)
            elif isinstance(event, Frame):
                self._take(event)
        if self._ws.close_expected():
            self._host.closing(self)

    def eof_received(self) -> None:
        """The other end sends nothing more; a WebSocket ends with it."""
        self._ws.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing
        """The connection is gone."""
        self._ws.receive_eof()
        if self._session is not None:
            self._session.hang_up()
        self.resume_writing()
        self._host.closed(self)

    def pause_writing(self) -> None:
        """The send buffer is full: whoever does not take answers asks nothing more.

        The protocol answers pings by itself; without this they would pile up here.
        """
        self._room = asyncio.get_running_loop().create_future()
        self._read_or_wait()
        if self._session is not None:
            self._session.stall(stalled=True)

    def resume_writing(self) -> None:
        """The send buffer has room, or nobody will read it any more."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        self._read_or_wait()
        if self._session is not None:
            self._session.stall(stalled=False)

    def _read_or_wait(self) -> None:
        """Read from the socket unless the session holds the agent or answers wait to be taken."""
        if self._transport.is_closing():
            return
        if self._held or self._room is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _shake_hands(self, request: Request) -> None:
        peer: Peer | Refused | None = None
        response = self._ws.accept(request)
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            peer = self._host.enter(self, *self._other_end())
            if isinstance(peer, Refused):
                response = self._ws.reject(peer.status, peer.message + "\n")
                if peer.retry_after is not None:
                    response.headers["Retry-After"] = str(math.ceil(peer.retry_after))
        self._ws.send_response(response)
        self._flush()
        if isinstance(peer, Peer):
            self._session = self._host.entered(self, peer)

    def _other_end(self) -> tuple[bytes, str]:
        """Return the verified certificate (DER) and the address of the socket's peer."""
        tls: ssl.SSLObject = self._transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True)
        # The context requires one; a connection without must not get as far as this.
        assert certificate is not None
        peer = self._transport.get_extra_info("peername")
        return certificate, str(peer[0])

    def _take(self, frame: Frame) -> None:
        if self._session is None:
            return
        match frame.opcode:
            case Opcode.TEXT if frame.fin:
                self._session.deliver(bytes(frame.data))
            case Opcode.TEXT:
                self._message = bytearray(frame.data)
            case Opcode.CONT if self._message is not None:
                self._message += frame.data
                if frame.fin:
                    message, self._message = bytes(self._message), None
                    self._session.deliver(message)
            case Opcode.BINARY:
                self._session.close(CloseCode.PROTOCOL, "messages are text")
            case Opcode.PING | Opcode.PONG:
                self._session.hear()
            case Opcode.CLOSE:
                self._session.hang_up()

    def _flush(self) -> None:
        for data in self._ws.data_to_send():
            if data:
                if not self._transport.is_closing():
                    self._transport.write(data)
            else:
                with contextlib.suppress(OSError):
                    self._transport.close()
