"""Requests in pieces: however TCP cuts what comes on a connection, each request is seen as it was sent."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise
from typing import Any

import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from serve.protocol import Protocol
from serve.timing import USUAL

GUARD = 20.0
LIST = b"LIST /inner HTTP/1.1\r\n\r\n"
INSIDE = [LIST, b"\r\n\r\n" + LIST, b"\r\n\r\nLI", b"LIST ", b"\r\n" * 9]
BODIES = st.binary(max_size=40) | st.sampled_from(INSIDE)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer method, path and body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    told = f"{scope['method']} {scope['path']} ".encode() + body
    headers = [(b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request as it is sent, and what is answered to it."""
    method = draw(st.sampled_from([b"GET", b"LIST", b"POST", b"PUT"]))
    path = draw(st.sampled_from([b"/a", b"/LIST", b"/" + b"b" * 300]))
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: a", b"X-Empty:", b"X-List: LIST /x"]
    body, sent = b"", b""
    framing = draw(st.sampled_from(["none", "length", "chunks"]))
    if framing == "length":
        sent = body = draw(BODIES)
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunks":
        chunks = draw(st.lists(BODIES.filter(bool), max_size=3))
        body = b"".join(chunks)
        sent = b"".join(b"%x;a=b\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        sent += draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX-Trailer: LIST /y\r\n\r\n"]))
        lines.append(b"Transfer-Encoding: chunked")
    blank = draw(st.sampled_from([b"", b"", b"\r\n", b"\r\n\r\n"]))
    return blank + b"\r\n".join(lines) + b"\r\n\r\n" + sent, method + b" " + path + b" " + body


async def answered(pieces: list[bytes], count: int) -> list[bytes]:
    """Send the pieces, each for itself, and return as many answers."""
    config = uvicorn.Config(echo, log_config=None, access_log=False, lifespan="off")
    config.load()
    connection = partial(Protocol, config=config, server_state=ServerState(), app_state={}, timing=USUAL)
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        for piece in pieces:
            writer.write(piece)
            for _ in range(6):
                await asyncio.sleep(0)
        found = []
        async with asyncio.timeout(GUARD):
            for _ in range(count):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 "), head
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                found.append(await reader.readexactly(int(length)))
        return found
    finally:
        writer.transport.abort()
        server.close()


SIZED = (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", b"POST /a {}")
CHUNKED = (b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"PUT /a ")
LISTED = (b"LIST /a HTTP/1.1\r\nHost: a\r\n\r\n", b"LIST /a ")


@given(st.lists(requests(), min_size=1, max_size=6), st.lists(st.integers(0, 1500), max_size=8))
@example([SIZED, LISTED, SIZED, LISTED], [])
@example([CHUNKED, SIZED, LISTED], [])
@example([SIZED, LISTED], [45, 46, 47, 48, 49, 50, 51, 52, 53, 54])
@settings(max_examples=150, deadline=None)
def test_each_is_seen_as_it_was_sent(sent: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """Of several requests one behind the other, cut anywhere, each has its method, its path and its body."""
    data = b"".join(raw for raw, _ in sent)
    places = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places) if start < end]
    assert asyncio.run(answered(pieces, len(sent))) == [told for _, told in sent]
