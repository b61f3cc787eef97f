"""One request and its answer on a connection: uvicorn's, with whole answers written at once.

Uvicorn writes an answer's head and its body one after the other, which are two packets, two TLS records
and two times that the peer is woken. Nearly all our answers are whole when they begin.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from serve.again import Said

TRANSPORT = "secrethub.transport"
"""In a request's scope on the direct listeners: the transport that its answer is written to."""


class Cycle(RequestResponseCycle):
    """As uvicorn's; the head waits for the first part of the body."""

    _head: MutableMapping[str, Any] | None = None
    said: Said
    """What the connection's requests say."""
    lines: bytes | None = None
    """The request's headers as they came; None when it did not come whole and alone."""

    @property
    def simple(self) -> bool:
        """Whether it is a read without a query, of a client that takes its answers as fast as it asks."""
        # One that does not is waited for, which takes a task.
        scope = self.scope
        return scope["method"] == "GET" and not scope["query_string"] and not self.flow.write_paused

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
        self.response_started = True
        self.waiting_for_100_continue = False
        self.transport.write(whole_answer(status, self.default_headers, head, body, self.keep_alive))
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def whole_answer(
    status: int, common: Iterable[tuple[bytes, bytes]], head: bytes, body: bytes, keep_alive: bool
) -> bytes:
    """Return an answer as it is written.

    Args:
        status: of HTTP.
        common: the server's own headers.
        head: all other header lines but that of the connection.
        body: what the head says that it is.
        keep_alive: whether the connection goes on.
    """
    parts = [STATUS_LINE[status], *(b"%b: %b\r\n" % pair for pair in common), head]
    parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    parts.append(body)
    return b"".join(parts)


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as they are written."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])
