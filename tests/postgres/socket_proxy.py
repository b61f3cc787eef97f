"""A proxy before PostgreSQL's socket, with which a test holds back or cuts off what the server answers."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes everything on, until it is told otherwise."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.asked = 0
        """Pieces that clients have sent."""
        self.delay = 0.0
        """Seconds that each piece of an answer comes late."""

    def hold(self) -> None:
        """Keep back what the server says from now on."""
        self._open.clear()

    def release(self) -> None:
        """Pass on what was kept back, and everything after it."""
        self._open.set()

    def cut(self) -> None:
        """End every connection, without what was kept back; later ones are passed on."""
        for writer in tuple(self._writers):
            writer.transport.abort()
        self._open.set()

    def passes(self, data: bytes) -> bool:
        """Tell whether what a client sends is passed on."""
        del data
        return True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        theirs, ours = await asyncio.open_unix_connection(self._server)
        self._writers |= {writer, ours}
        try:
            with contextlib.suppress(OSError):
                await asyncio.gather(self._asks(reader, ours), self._answers(theirs, writer))
        finally:
            self._writers -= {writer, ours}
            writer.close()
            ours.close()

    async def _asks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.asked += 1
            if not self.passes(data):
                continue
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._open.wait()
            await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Put a proxy before the server of ``url``; yield it and the URL that goes through it."""
    parts = urlsplit(url)
    proxy = Proxy(str(Path(parse_qs(parts.query)["host"][0]) / _SOCKET))
    with tempfile.TemporaryDirectory(prefix="secrethub-proxy-") as folder:
        server = await asyncio.start_unix_server(proxy.accept, Path(folder) / _SOCKET)
        try:
            yield proxy, parts._replace(query=f"host={quote(folder)}").geturl()
        finally:
            server.close()
            proxy.cut()
