"""One conversation with one gateway, from the TLS handshake to the close.

Drives :class:`secrethub.wire.session.Session` over a WebSocket. The gateway's name is checked
before the first message is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from agent.identity import Identity
from agent.outcomes import error_of
from secrethub import __version__
from secrethub.errors import PermissionDenied, SecretHubError, Unavailable
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.codec import FROM_CORE_LIMIT, ProtocolViolation
from secrethub.wire.messages import (
    SUBPROTOCOL,
    ClientMessage,
    CoreMessage,
    Error,
    Hello,
    Issued,
    Message,
    Ping,
    Pong,
    RevokeLease,
    Welcome,
)
from secrethub.wire.session import Request, Session

OPEN_TIMEOUT = 10.0
"""Seconds from the first packet to ``welcome``."""
REQUEST_TIMEOUT = 10.0
"""Seconds to wait for the answer to a request."""
KEEPALIVE = 20.0
"""Seconds between WebSocket pings, and to wait for each pong."""
TOGETHER = 64
"""Requests in flight at most; further ones wait here."""

_LATER = re.compile(r"retry in ([0-9]{1,3})\b")
_SECONDS = re.compile(r"[0-9]{1,3}")

A = TypeVar("A", bound=CoreMessage)


class Closed(Unavailable):
    """The conversation is over.

    Attributes:
        close_code: the WebSocket's close code, 1006 when there was none.
        retry_after: seconds for which the gateway asks to stay away, or None.
    """

    def __init__(self, message: str = "", close_code: int = 1006, retry_after: float | None = None) -> None:
        super().__init__(message, close_code, retry_after)
        self.close_code = close_code
        self.retry_after = retry_after


class Conversation:
    """An open conversation. Made by :func:`converse`.

    Attributes:
        node: the gateway's node, as its certificate says.
        ended: whether nothing more will come.
        gateways: the addresses of all gateways, as this one knows them.
    """

    def __init__(self, socket: ClientConnection, node: str) -> None:
        self.node = node
        self.ended = False
        self.gateways: tuple[str, ...] = ()
        self._socket = socket
        self._session = Session("agent")
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._ids = itertools.count(1)
        self._room = asyncio.Semaphore(TOGETHER)

    @property
    def in_flight(self) -> int:
        """Requests that have no answer yet."""
        return len(self._answers)

    async def greet(self, name: str, witness: bytes) -> Welcome:
        """Say hello, with the checkpoint that is kept of the ledger, and return the welcome.

        Raises:
            Closed: the gateway ended the conversation instead.
        """
        await self.send(Hello(version=__version__, name=name, witness=witness))
        answer = await self._receive()
        if not isinstance(answer, Welcome):  # the session lets nothing else through
            raise Closed("welcome did not answer hello")
        self.gateways = answer.agent_urls
        return answer

    async def listen(self, push: Callable[[Message], None]) -> None:
        """Hand answers to those who asked and everything else to ``push``, until the end.

        Raises:
            Closed: always, in the end.
        """
        ending: SecretHubError = Closed("the connection to Core ended")
        try:
            while True:
                message = await self._receive()
                if isinstance(message, Ping):
                    await self.send(Pong())
                    continue
                request_id = getattr(message, "id", None)
                if request_id is None:
                    push(message)
                elif (waiting := self._answers.pop(request_id, None)) is not None and not waiting.done():
                    waiting.set_result(message)
                elif isinstance(message, Issued):
                    # Nobody waits for it any more, so nobody would ever end it.
                    await self.send(RevokeLease(id=next(self._ids), lease_id=message.lease_id))
        except Closed as exc:
            ending = exc
            raise
        finally:
            self.ended = True
            for waiting in self._answers.values():
                if not waiting.done():
                    waiting.set_exception(ending)
            self._answers.clear()

    async def ask(self, build: Callable[[int], Request], answer: type[A]) -> A:
        """Send a request and return its answer.

        Args:
            build: makes the request with the id it is given.
            answer: the type that answers it.

        Raises:
            SecretHubError: what Core answered instead.
            Unavailable: no answer in time, or the conversation ended.
        """
        request_id = next(self._ids)
        waiting: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT), self._room:
                self._answers[request_id] = waiting
                await self.send(build(request_id))
                got = await waiting
        except TimeoutError as exc:
            if self._session.in_flight > TOGETHER:
                await self._socket.close()  # so many unanswered requests: another gateway will do better
            raise Unavailable("Core did not answer in time") from exc
        finally:
            self._answers.pop(request_id, None)
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # sending may have failed of the same loss before it was looked at
        if isinstance(got, Error):
            raise error_of(got)
        if not isinstance(got, answer):
            raise Unavailable("Core's answer is of another kind")
        return got

    async def send(self, message: ClientMessage) -> None:
        """Send one message.

        Raises:
            Closed: the conversation is over.
        """
        try:
            await self._socket.send(self._session.send(message), text=True)
        except ConnectionClosed as exc:
            self.ended = True  # whoever asks again is to wait for the next one
            raise _closed(exc) from exc
        except ProtocolViolation as exc:
            raise Closed("the connection to Core is not open") from exc

    async def settle(self, timeout: float) -> None:
        """Wait until nothing is in flight, at most ``timeout`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._answers:
                    await asyncio.wait(list(self._answers.values()))
                    await asyncio.sleep(0)  # those who waited take their answers out

    async def close(self) -> None:
        """Close the connection in good order."""
        self._session.close()
        await self._socket.close(CloseCode.NORMAL)

    async def _receive(self) -> Message:
        try:
            frame = await self._socket.recv(decode=False)
            return self._session.receive(frame)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc
        except ProtocolViolation as exc:
            await self._socket.close(exc.close_code, exc.message[:100])
            raise Closed(f"Core broke the protocol: {exc.message}", exc.close_code) from exc


@contextlib.asynccontextmanager
async def converse(
    identity: Identity, url: str, name: str, witness: bytes = b""
) -> AsyncIterator[Conversation]:
    """Open a conversation with the gateway at ``url``; closed at the end of the block.

    Args:
        identity: whose certificate is shown.
        url: ``wss://host:port``.
        name: the agent's name, for people.
        witness: the checkpoint that is kept of the ledger, empty for none.

    Raises:
        Closed: the gateway ended the conversation at once; the code says why.
        PermissionDenied: the server is no gateway of the agent's cluster.
        Unavailable: no connection, or nobody there who speaks the protocol.
    """
    socket = await _connect(identity, url)
    try:
        conversation = Conversation(socket, _gateway(identity, socket))
        if socket.subprotocol != SUBPROTOCOL:
            raise Unavailable(f"{url}: does not speak {SUBPROTOCOL}")
        await _greet(conversation, identity, name, witness)
        yield conversation
    finally:
        await socket.close()


async def _connect(identity: Identity, url: str) -> ClientConnection:
    try:
        return await connect(
            url,
            ssl=identity.tls_context(),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=FROM_CORE_LIMIT,
            open_timeout=OPEN_TIMEOUT,
            ping_interval=KEEPALIVE,
            ping_timeout=KEEPALIVE,
            close_timeout=2.0,
            proxy=None,
            user_agent_header=f"secrethub-agent/{__version__}",
        )
    except InvalidStatus as exc:
        status, asked = exc.response.status_code, exc.response.headers.get("Retry-After", "")
        later = int(asked) if _SECONDS.fullmatch(asked) else None
        code = CloseCode.TRY_AGAIN_LATER if status == 503 else 1006
        raise Closed(f"{url}: refused with HTTP {status}", code, later) from exc
    except (InvalidHandshake, InvalidURI) as exc:
        raise Unavailable(f"{url}: {exc}") from exc
    except TimeoutError as exc:
        raise Unavailable(f"{url}: no connection in time") from exc
    except OSError as exc:
        raise Unavailable(f"{url}: {exc.strerror or exc}") from exc


async def _greet(conversation: Conversation, identity: Identity, name: str, witness: bytes) -> None:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            welcome = await conversation.greet(name, witness)
    except TimeoutError as exc:
        raise Unavailable("no welcome in time") from exc
    if welcome.agent_id != identity.agent_id:
        raise PermissionDenied("Core takes this agent for another one")


def _gateway(identity: Identity, socket: ClientConnection) -> str:
    tls = socket.transport.get_extra_info("ssl_object")
    certificate = None if tls is None else tls.getpeercert(True)
    if certificate is None:
        raise PermissionDenied("the server showed no certificate")
    return identity.check_gateway(certificate)


def _closed(exc: ConnectionClosed) -> Closed:
    if exc.rcvd is None:
        return Closed("the connection to Core was lost")
    code, reason = exc.rcvd.code, exc.rcvd.reason
    asked = _LATER.search(reason) if code == CloseCode.TRY_AGAIN_LATER else None
    return Closed(f"Core ended the connection: {reason or code}", code, int(asked[1]) if asked else None)
