"""One request and its answer on a connection: uvicorn's, with whole answers written at once.

Uvicorn writes an answer's head and its body one after the other, which are two packets, two TLS records
and two times that the peer is woken. Nearly all our answers are whole when they begin.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from serve.said import Said

TRANSPORT = "secrethub.transport"
"""In a request's scope on the direct listeners: the transport that its answer is written to."""


class Cycle(RequestResponseCycle):
    """As uvicorn's; the head waits for the first part of the body."""

    _head: MutableMapping[str, Any] | None = None
    said: Said
    """What the connection's requests say."""

    async def send(self, message: Any) -> None:
        """Take a message of the application (ASGI 3).

        Raises:
            RuntimeError: the messages are no answer.
        """
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            if self._whole(head, message):
                return
            await super().send(cast("Any", head))
        await super().send(message)

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Write a whole answer, unless the client has gone away.

        Args:
            status: of HTTP.
            head: all header lines but those of the server and the connection.
            body: what the head says that it is.
        """
        if not self.disconnected:
            self._write(status, head, body)

    def _whole(self, head: MutableMapping[str, Any], message: MutableMapping[str, Any]) -> bool:
        """Write an answer whose last header tells the length of the body that is all here; or do nothing."""
        body = message.get("body", b"")
        headers = head["headers"]
        if message.get("more_body") or self.disconnected or self.flow.write_paused or not headers:
            return False
        if headers[-1] != (b"content-length", b"%d" % len(body)):
            return False
        self._write(head["status"], header_lines(headers), body)
        return True

    def _write(self, status: int, head: bytes, body: bytes) -> None:
        parts = [STATUS_LINE[status], *(b"%b: %b\r\n" % pair for pair in self.default_headers), head]
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        self.response_started = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join(parts))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as they are written."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])
