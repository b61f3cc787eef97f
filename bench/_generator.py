"""Our own load generator, where ``wrk`` is not installed: raw HTTP/1.1 on asyncio protocols and uvloop.

Reads one :class:`bench._load.Load` as JSON from standard input and prints one ``RESULT`` line. Does as
little as it can per request: one fixed byte string out, a look for the head's end and the length in.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench._load import KEYS, Load

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Run:
    """The numbers of one run."""

    def __init__(self, load: Load) -> None:
        """Prepare every request's bytes beforehand."""
        parts = urlsplit(load.base)
        head = (
            f"Host: {parts.netloc}\r\nX-Vault-Token: {load.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(load.body)}\r\n\r\n{load.body}"
        )
        names = [f"{'POST' if load.body else 'GET'} {load.target}"]
        if load.body and load.numbered:
            names = [f"{names[0]}{n}" for n in range(KEYS)]
        self.requests = [f"{name} HTTP/1.1\r\n{head}".encode() for name in names]
        self.next = 0
        self.latencies: list[float] = []
        self.failed = 0
        self.until = 0.0
        self.open = load.connections
        self.ended = asyncio.Event()


class Connection(asyncio.Protocol):
    """One connection with one request under way at a time."""

    def __init__(self, run: Run) -> None:
        """Count on ``run``."""
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count a whole answer and send the next request."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if len(self._buffer) < end + 4 + (int(length[1]) if length else 0):
            return
        now = time.perf_counter()
        self._run.latencies.append(now - self._sent)
        self._run.failed += self._buffer[9:10] != b"2"
        self._buffer = b""
        if now < self._run.until:
            self._send()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Count what broke off."""
        self._run.failed += time.perf_counter() < self._run.until
        self._run.open -= 1
        if not self._run.open:
            self._run.ended.set()

    def _send(self) -> None:
        run = self._run
        run.next = (run.next + 1) % len(run.requests)
        self._sent = time.perf_counter()
        assert self._transport is not None
        self._transport.write(run.requests[run.next])


async def main() -> None:
    """Run the load that standard input describes."""
    load = Load(**json.load(sys.stdin))
    run, parts, loop = Run(load), urlsplit(load.base), asyncio.get_running_loop()
    tls = None
    if parts.scheme == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE  # loopback, a server of our own: what is measured is the server
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    started = time.perf_counter()
    run.until = started + load.seconds
    await asyncio.gather(
        *(
            loop.create_connection(lambda: Connection(run), host, port, ssl=tls)
            for _ in range(load.connections)
        )
    )
    await asyncio.wait_for(run.ended.wait(), load.seconds + 30)
    took = time.perf_counter() - started
    times = sorted(run.latencies)
    found = {
        "requests": len(times),
        "micros": took * 1e6,
        "p50": times[len(times) // 2] * 1e6,
        "p99": times[len(times) * 99 // 100] * 1e6,
        "failed": run.failed,
    }
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    uvloop.run(main())
