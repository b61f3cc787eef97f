"""A transport for HTTPX that takes a quarter of its own: tests send some hundred thousand requests.

Plain HTTP/1.1 on kept connections, read by the parser in C that the server has, too. Nothing is ever sent
again: a request on a connection that ended is a failure that a test sees.
"""

from __future__ import annotations

import asyncio
import contextlib

import httptools
import httpx2

_PIECE = 1 << 16


class PlainTransport(httpx2.AsyncBaseTransport):
    """Sends requests to ``http://`` addresses, as many at once as are asked for; answers come whole."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.scheme != "http":
            raise httpx2.UnsupportedProtocol(f"{request.url.scheme} is not plain HTTP")
        patience = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(patience):
                return await self._exchange(request, await request.aread())
        except TimeoutError as exc:
            raise httpx2.ReadTimeout(f"no answer within {patience} s") from exc

    async def aclose(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        connection = await self._connected(request.url)
        try:
            response = await connection.exchange(request, body)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    async def _connected(self, url: httpx2.URL) -> _Connection:
        where = url.host, url.port or 80
        while self._idle:
            connection = self._idle.pop()
            if connection.where == where and connection.alive:
                return connection
            connection.close()
        try:
            return _Connection(where, *await asyncio.open_connection(*where))
        except OSError as exc:
            raise httpx2.ConnectError(str(exc)) from exc


class _Connection:
    """One connection; also what the parser tells of the answer that it reads."""

    def __init__(
        self, where: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.where = where
        self.reusable = False
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpResponseParser(self)
        self._headless = False
        self._begin()

    @property
    def alive(self) -> bool:
        """Whether neither side has ended it, as far as is known."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        """End it at once."""
        self._writer.transport.abort()

    async def exchange(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        """Send a request and return its answer.

        Raises:
            httpx2.TransportError: the connection ended before, or what came is no HTTP.
        """
        self._begin()
        self._headless = request.method == "HEAD"
        # Who sends much may be answered before all of it was read, on a connection that then ends.
        with contextlib.suppress(OSError):
            self._writer.write(_written(request, body))
            await self._writer.drain()
        while not self._whole:
            try:
                data = await self._reader.read(_PIECE)
            except OSError as exc:
                raise httpx2.ReadError(str(exc)) from exc
            if not data:
                raise httpx2.RemoteProtocolError("the server ended the connection without a whole answer")
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as exc:
                raise httpx2.RemoteProtocolError(str(exc)) from exc
        return httpx2.Response(
            self._status,
            headers=self._headers,
            content=b"".join(self._body),
            extensions={"http_version": b"HTTP/1.1"},
        )

    def _begin(self) -> None:
        self._whole = False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self.reusable = self._parser.should_keep_alive() and not self._headless
        # The parser waits for as much as the headers announce.
        self._whole = self._headless

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._status >= 200:
            self._whole = True
        else:
            self._begin()


def _written(request: httpx2.Request, body: bytes) -> bytes:
    """Return a request as it is sent."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % pair for pair in request.headers.raw]
    if "transfer-encoding" in request.headers:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    return b"\r\n".join([*lines, b"", body])
