"""HTTP as bytes on a socket, for what no well-behaved client sends."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.gateway.conftest import Node

GUARD = 30.0
"""Seconds after which a test that waits for the server has failed."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer. Names of headers are in lower case, in the order in which they came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for given, value in self.headers if given == name]
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def send(self, *parts: bytes) -> None:
        """Send each part by itself: the server has read one before the next one leaves."""
        for part in parts:
            if self.writer.is_closing():
                raise ConnectionResetError("the server has ended the connection")
            self.writer.write(part)
            await self.writer.drain()
            # The server runs in this loop: it has its turn, several times.
            for _ in range(20):
                await asyncio.sleep(0)

    async def reply(self, method: str = "GET") -> Reply:
        async with asyncio.timeout(GUARD):
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            pairs = tuple(
                (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
            )
            reply = Reply(status=int(first.split(" ")[1]), headers=pairs, body=b"")
            if method == "HEAD" or reply.status in {100, 204, 304}:
                return reply
            if reply.header("transfer-encoding") == "chunked":
                body = await self._chunks()
            else:
                body = await self._reader.readexactly(int(reply.header("content-length") or "0"))
            return Reply(status=reply.status, headers=pairs, body=body)

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readline()
        await self._reader.readline()
        return b"".join(parts)

    async def rest(self) -> bytes:
        """Return what comes until the server ends the connection."""
        async with asyncio.timeout(GUARD):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def wire(node: Node, context: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """Connect to the plain door, or with a context to the TLS door."""
    where = node.settings.http if context is None else node.settings.tls
    assert where is not None
    reader, writer = await asyncio.open_connection(where.host, where.port, ssl=context)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def request(
    path: str = "/v1/sys/health",
    *headers: str,
    method: str = "GET",
    host: str | None = "localhost",
    body: bytes | None = None,
) -> bytes:
    """Return a request; a body brings its length along."""
    lines = [f"{method} {path} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += headers
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


async def ask(node: Node, data: bytes, method: str = "GET") -> Reply:
    """Send bytes on a fresh connection and return the first answer."""
    async with wire(node) as connection:
        await connection.send(data)
        return await connection.reply(method)
