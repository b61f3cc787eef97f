"""A small HTTPS client for the few calls that the agent makes: enrolment and reload hooks.

One request, one connection. No redirects, no proxies, no cookies; answers are bounded in size and
time. A full client would cost a sixth of the agent's memory for these calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from agent import http1
from agent.urls import is_loopback
from secrethub.errors import InvalidRequest, Misconfigured, TooLarge, Unavailable

_LARGEST = 1024 * 1024
"""Bytes an answer may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """Whose certificate is believed.

    Attributes:
        context: decides in the handshake.
        check: decides after it, given the connection's ``SSLObject``; raises Unavailable.
    """

    context: ssl.SSLContext
    check: Callable[[Any], None] | None = None


async def request(
    method: str,
    url: str,
    *,
    tls: Tls | None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = 15.0,
) -> Response:
    """Send one request and return the answer, whatever its status.

    Args:
        method: as in HTTP.
        url: ``https://…``, or ``http://…`` on loopback.
        tls: needed for https.
        headers: sent as given; must hold no line breaks.
        body: None sends none.
        timeout: seconds for everything together.

    Raises:
        Misconfigured: a URL that must not be used.
        Unavailable: no connection, a certificate that is not trusted, no answer in time, or not
            an answer.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    if not parts.hostname or (not secure and not is_loopback(parts.hostname)) or (secure and tls is None):
        raise Misconfigured(f"{parts.scheme}://{parts.hostname} must not be used without TLS")
    port = parts.port or (443 if secure else 80)
    where = f"{parts.hostname}:{port}"
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=tls.context if secure and tls else None, limit=http1.LONGEST_HEAD
            )
            try:
                if secure and tls and tls.check:
                    tls.check(writer.get_extra_info("ssl_object"))
                target = _target(parts.path, parts.query)
                writer.write(_encode(method, parts.netloc, target, headers or {}, body))
                await writer.drain()
                return await _receive(reader, method)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except ssl.SSLCertVerificationError as exc:
        raise Unavailable(f"{where}: certificate not trusted: {exc.verify_message}") from exc
    except ssl.SSLError as exc:
        raise Unavailable(f"{where}: TLS failed: {exc.reason or 'no TLS there'}") from exc
    except TimeoutError as exc:
        raise Unavailable(f"{where}: no answer in time") from exc
    except (OSError, EOFError) as exc:
        raise Unavailable(f"{where}: {getattr(exc, 'strerror', None) or 'connection lost'}") from exc
    except (InvalidRequest, TooLarge, asyncio.LimitOverrunError) as exc:
        raise Unavailable(f"{where}: not a usable HTTP answer") from exc


def _target(path: str, query: str) -> str:
    return (path or "/") + (f"?{query}" if query else "")


def _encode(method: str, host: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    fields = {"Host": host, "Connection": "close", "Accept": "application/json", **headers}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise Misconfigured("a header value holds a line break")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


async def _receive(reader: asyncio.StreamReader, method: str) -> Response:
    head = http1.parse_response(await reader.readuntil(b"\r\n\r\n"))
    while 100 <= head.status < 200:
        head = http1.parse_response(await reader.readuntil(b"\r\n\r\n"))
    if method == "HEAD" or head.status in {204, 304}:
        body = b""
    elif http1.is_chunked(head.headers):
        body = await _chunks(reader)
    else:
        length = http1.content_length(head.headers)
        body = await (_rest(reader) if length is None else _exactly(reader, length))
    return Response(status=head.status, headers=head.headers, body=body)


async def _exactly(reader: asyncio.StreamReader, length: int) -> bytes:
    if length > _LARGEST:
        raise TooLarge(f"the answer has more than {_LARGEST} bytes")
    return await reader.readexactly(length)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while piece := await reader.read(65_536):
        body += piece
        if len(body) > _LARGEST:
            raise TooLarge(f"the answer has more than {_LARGEST} bytes")
    return body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := http1.chunk_size(await reader.readuntil(b"\r\n")):
        body += await _exactly(reader, size)
        if await reader.readexactly(2) != b"\r\n":
            raise InvalidRequest("a chunk does not end where it should")
        if len(body) > _LARGEST:
            raise TooLarge(f"the answer has more than {_LARGEST} bytes")
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailer fields, which nobody asked for
    return body
