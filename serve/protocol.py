"""HTTP/1.1 for the direct listeners: uvicorn's httptools protocol, with ``LIST`` and with limits.

What uvicorn leaves to others and this adds:

- httptools refuses the ``LIST`` verb that Vault's clients use. At the beginning of a request, and only
  there, the four letters are replaced by ``LINK``, a verb of the same length that the parser knows;
  the request's scope gets its name back. A real ``LINK`` stays one, and is refused later.
- The head of a request is bounded in size and time, and so is what comes after an answer that did not
  wait for the body. A peer that is refused is told why before the connection ends.
- Fields after a chunked body (trailers) are dropped: they are no headers, and nobody checked them.
- An offer to upgrade is not taken. httptools would take the body of such a request for the next
  request, so the offer is made unreadable when it arrives in one piece and refused otherwise.
- A request that cannot be read never goes before the answers that are owed to earlier ones.
- Whole answers are written at once (``serve/cycle.py``).
- A read that says again what the one before said is not parsed (``serve/again.py``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from secrethub.errors import InvalidRequest
from secrethub.ids import new_uuid
from serve.again import Again, Said, plain_of
from serve.client_certificates import PEER, peer_chain
from serve.cycle import TRANSPORT, Cycle, whole_answer
from serve.errors import ANSWER_HEADERS, answer_error
from serve.timing import Timing

_LIST = b"LIST "
_STAND_IN = b"LINK "
_NOT_BLANK = re.compile(rb"[^\r\n]")
_END = b"\r\n\r\n"
"""Of a head, and of a body in chunks."""
_BEFORE = len(_END) - 1
"""Bytes before a piece that may begin what ends in it."""
_CUT = 16
"""Bytes of framing that an end within a body counts for: a body may be full of them."""
_PIECE = 16_384
_MAX_HEAD = 65_536
"""Bytes of a request's line and headers, give or take one piece."""
_MAX_FRAMING = 1 << 20
"""Bytes beside the body that chunks and trailers may take."""
_MAX_IGNORED = 8 << 20
"""Bytes that are read only so that an answer arrives before the connection ends."""
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_NO_UPGRADE = b"\r\nx-offer:"
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_STATUS = {
    400: b"HTTP/1.1 400 Bad Request\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
}


Take = Callable[[Cycle | Again, Callable[[], None]], None]
"""Takes a read that may need no task; given what makes one."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, timing: Timing, take: Take | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timing = timing
        self._take = take
        self._said = Said()
        self._lines: bytes | None = None
        """The header lines of the request that is parsed, when it came whole and alone."""
        self._again: Again | None = None
        """The read that is carried out without having been parsed: all that follows waits for its answer."""
        self._behind = b""
        self._between = True
        """The next byte begins a request."""
        self._arriving = False
        """The headers of ``self.cycle`` are complete, its body is not."""
        self._listing = False
        """The request that begins is a LIST in disguise."""
        self._peer: tuple[bytes, ...] = ()
        self._held = b""
        self._tail = b""
        """The last bytes that were parsed, where a head or a body in chunks goes on."""
        self._left = 0
        """Bytes of the body that are still to come, when its head has said how many."""
        self._framing = 0
        self._ignored = 0
        self._stopped = False
        self._running: RequestResponseCycle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and wait for a request, but not for ever."""
        super().connection_made(transport)
        self._peer = peer_chain(transport.get_extra_info("ssl_object"))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; all whose answers are owed are told, not the newest alone."""
        self._cancel()
        self._again, self._behind = None, b""
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if self._stopped:
            self._ignore(len(data))
            return
        if self._again is not None:
            self._behind += data
            self.flow.pause_reading()
            return
        self._unset_keepalive_if_required()
        data = self._held + data
        self._held = b""
        plain = plain_of(data) if self._between and self._answered else None
        self._lines = None if plain is None else plain[1]
        if plain is None or not self._repeats(data, *plain):
            self._parse(data)

    @property
    def _answered(self) -> bool:
        """Whether no answer is owed."""
        return self._again is None and (self.cycle is None or self.cycle.response_complete)

    def _repeats(self, data: bytes, path: bytes, lines: bytes) -> bool:
        """Have a read carried out whose headers were understood before; tell whether it is one."""
        like = None if self._take is None or self.flow.write_paused else self._said.again(lines)
        if self._take is None or like is None:
            return False
        self._cancel()
        self._again = again = Again(self, data, path, like)
        self._take(again, again.whole_way)
        return True

    def answered(self, again: Again, status: int, head: bytes, body: bytes) -> None:
        """Answer a read that was not parsed, unless the client has gone away; go on with what follows.

        Args:
            again: the read.
            status: of HTTP.
            head: all header lines but those of the server and the connection.
            body: what the head says that it is.
        """
        if again is not self._again:
            return
        self._again = None
        common = self.server_state.default_headers
        self.transport.write(whole_answer(status, common, head, body, again.keep_alive))
        if not again.keep_alive:
            self.transport.close()
        self.on_response_complete()
        behind, self._behind = self._behind, b""
        if behind and not self.transport.is_closing():
            self.data_received(behind)

    def parse(self, again: Again) -> None:
        """Parse a read after all, and what came after it, unless the client has gone away."""
        if again is not self._again:
            return
        self._again = None
        data, self._behind = again.data + self._behind, b""
        # The first of them is known not to be at hand; the others wait for it.
        take, self._take = self._take, None
        self._parse(data)
        self._take = take
        if not again.keep_alive:
            self.shutdown()

    def shutdown(self) -> None:
        """End the connection, after the answer that is owed."""
        if self._again is None:
            super().shutdown()
        else:
            self._again.keep_alive = False

    def _parse(self, data: bytes) -> None:
        at = len(self._tail)
        data = self._tail + data
        while at < len(data) and not self._stopped:
            begins = self._between
            if begins:
                first = _NOT_BLANK.search(data, at)
                at = len(data) if first is None else first.start()
                if len(data) - at < len(_LIST) and _LIST.startswith(data[at:]):
                    self._held = data[at:]
                    break
            end = self._end(data, at)
            self._feed(self._beginning(data[at:end]) if begins else data[at:end])
            at = end
        self._tail = b"" if self._between or self._sized else data[-_BEFORE:]
        if not self._stopped:
            self._watch()

    def _end(self, data: bytes, at: int) -> int:
        """Return how far the parser shall read: to where a head or a body ends, for LIST may stand behind it.

        Only the parser says whether a request has ended, so an end that is none does no harm.
        """
        if self._sized:
            return at + self._left
        found = data.find(_END, at if self._between else max(0, at - _BEFORE))
        if found < 0:
            return len(data)
        if self._arriving:
            self._framing += _CUT
        return found + len(_END)

    @property
    def _sized(self) -> bool:
        """Whether a body goes on whose length is known."""
        return self._arriving and self._left > 0

    def _beginning(self, data: bytes) -> bytes:
        """Return the head of a request, or what is here of it, as the parser shall see it."""
        if data.startswith(_LIST):
            self._listing = True
            data = _STAND_IN + data[len(_LIST) :]
        return _UPGRADE.sub(_NO_UPGRADE, data) if b"pgrade:" in data else data

    def _feed(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            self._framing += len(piece)
            try:
                self.parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._refuse(400, "the request is not valid HTTP/1.1")
            limit = _MAX_FRAMING if self._arriving else _MAX_HEAD
            if self._framing > limit and not self._between:
                what = "body has too much framing" if self._arriving else "headers are too large"
                self._refuse(431, f"the request's {what}")
            if self._stopped:
                return

    def on_message_begin(self) -> None:
        """A request begins."""
        self._between = False
        self._framing = self._left = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header arrived, or a trailer, which is none."""
        if self._arriving:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"content-length":
            self._left = int(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The request can be handed on."""
        if self._stopped:
            return
        if self.parser.should_upgrade():
            self._refuse(400, "connections are not upgraded here")
            return
        if self.parser.get_http_version() not in {"1.0", "1.1"}:
            self._refuse(400, "only HTTP/1.1 is spoken here")
            return
        absolute = _ABSOLUTE.match(self.url)
        if absolute is not None:
            # RFC 9112, 3.2.2: the target names the host, the header says nothing.
            self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"]
            self.headers.append((b"host", absolute[1]))
        elif not self.url.startswith(b"/") or b"#" in self.url:
            self._refuse(400, "the request target must be a path")
            return
        self._cancel()
        self._arriving = True
        self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]
        if self._peer:
            self.scope[PEER] = self._peer  # type: ignore[literal-required]
        super().on_headers_complete()
        # The application's task, if it is this request's turn, has been made but has not run yet.
        if self._listing:
            self._listing = False
            self.scope["method"] = "LIST"

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Uvicorn names its class in the middle of a method that would have to be copied.
        cycle.__class__ = Cycle
        ours = cast("Cycle", cycle)
        ours.said = self._said
        ours.lines, self._lines = self._lines, None
        self._running = cycle
        start = partial(super()._start_asgi_task, cycle, app)
        if self._take is not None and ours.simple:
            self._take(ours, start)
        else:
            start()

    def on_body(self, body: bytes) -> None:
        """A part of the body arrived."""
        if self._stopped:
            return
        self._framing -= len(body)
        self._left -= len(body)
        if self.cycle.response_complete:
            self._ignore(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has ended; the next one may begin."""
        if self._stopped:
            return
        self._between, self._arriving = True, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been sent, perhaps before all of the request was here."""
        super().on_response_complete()
        if not self._stopped and not self.transport.is_closing():
            self._watch()

    def _watch(self) -> None:
        """Set or take back the deadline for what this connection is waiting for now."""
        answered = self._answered
        idle = self.timeout_keep_alive_task is not None
        if (self._between and (idle or not answered)) or (self._arriving and not answered):
            self._cancel()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._timing.head, self._out_of_time)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _out_of_time(self) -> None:
        self._deadline = None
        if self._between or self._arriving:
            self.transport.close()
        else:
            self._refuse(408, "the request did not arrive in time")

    def _ignore(self, size: int) -> None:
        self._ignored += size
        if self._ignored > _MAX_IGNORED:
            self.transport.abort()

    def _refuse(self, status: int, why: str) -> None:
        """Read no more requests; say why, unless answers are owed, after which the connection ends."""
        if self._stopped:
            return
        self._stopped = True
        self._cancel()
        answered = False
        if self._arriving:
            # The body of this very request is broken: it is not carried out.
            answered = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.pipeline and self.pipeline[0][0] is self.cycle:
                self.pipeline.popleft()
        owed = self.pipeline[0][0] if self.pipeline else self._running
        if owed is not None and not owed.response_complete and not owed.disconnected:
            owed.keep_alive = False
            return
        if self.transport.is_closing():
            return
        if not answered:
            _, body, _ = answer_error(InvalidRequest(why), new_uuid())
            lines = [_STATUS[status], *(b"%s: %s\r\n" % pair for pair in ANSWER_HEADERS)]
            lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
            self.transport.write(b"".join(lines) + body)
        # Closing at once, with bytes unread, would reset the connection and lose the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(self._timing.linger, self.transport.abort)
