"""Metrics of a node: every process offers its own on a private socket, one of them merges and serves.

What a process offers is in ``secrethub/operations/own_metrics.py``, for actors offer theirs, too.
The port belongs to whichever process locks its file first; when that process goes, another takes over.
Samples get a label ``process``, so that the same metric of two processes never collides.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from secrethub.background import Background
from secrethub.engines.runtime import Core
from secrethub.engines.shared import Shared
from secrethub.node import Listener
from secrethub.operations.own_metrics import OwnMetrics, metrics_folder
from serve.timing import Timing

_DISTANCE = 0.1
"""Seconds between the beginnings of two merges."""
_MAX_REQUEST = 8192

METRICS_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")

_log = logging.getLogger(__name__)


class NodeMetrics:
    """This process's part in the node's metrics."""

    def __init__(self, core: Core, process: str, timing: Timing) -> None:
        self._core = core
        self._timing = timing
        self._own = OwnMetrics(core, process)
        self._folder = metrics_folder(core)
        self._servers: list[asyncio.Server] = []
        self._background = Background()
        self._lock: int | None = None
        self._merged = Shared(self._merge, _DISTANCE)

    async def start(self) -> None:
        """Offer this process's metrics, and the node's when the port is free."""
        await self._own.start()
        where = self._core.settings.metrics
        if where is not None:
            self._background.begin("metrics-port", lambda: self._own_port(where))

    async def stop(self) -> None:
        """End, and leave the port to another process."""
        await self._background.end()
        for server in self._servers:
            server.close()
        self._servers = []
        await self._own.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _own_port(self, where: Listener) -> None:
        path = self._folder / f"port-{where.port}.lock"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._servers.append(await asyncio.start_server(self._serve, where.host, where.port))
            except OSError:
                os.close(descriptor)
                await asyncio.sleep(self._timing.metrics_port)
                continue
            self._lock = descriptor
            return

    async def text(self) -> bytes:
        """Return the metrics of every process of this node.

        Merging costs milliseconds and nobody needs a token for it, so it is shared.
        """
        return await self._merged.get()

    async def _merge(self) -> bytes:
        merged: dict[str, Metric] = {}
        for path in sorted(self._folder.glob("*.sock")):
            if path.stem == self._own.name:
                text = self._own.text().decode()
            else:
                text = await _ask(path, self._timing.metrics_answer)
            for family in text_string_to_metric_families(text):
                into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.samples.append(sample._replace(labels={**sample.labels, "process": path.stem}))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Merged(list(merged.values())))
        return generate_latest(registry)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._timing.metrics_answer):
                head = await reader.readuntil(b"\r\n\r\n")
            line = head.split(b"\r\n", 1)[0].split(b" ")
            if len(head) > _MAX_REQUEST or len(line) != 3 or line[0] not in {b"GET", b"HEAD"}:
                writer.write(_http(b"400 Bad Request", b""))
            elif line[1].partition(b"?")[0] != b"/metrics":
                writer.write(_http(b"404 Not Found", b""))
            else:
                writer.write(_http(b"200 OK", await self.text(), with_body=line[0] == b"GET"))
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _log.debug("a metrics client went away")
        finally:
            writer.close()


class _Merged(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Return what was merged."""
        return self._families


async def _ask(path: Path, seconds: float) -> str:
    """Return another process's metrics; nothing from one that is gone, whose socket is removed."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path)
            text = await reader.read()
            writer.close()
            return text.decode()
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return ""
    except (OSError, TimeoutError):
        return ""


def _http(status: bytes, body: bytes, *, with_body: bool = True) -> bytes:
    lines = (
        b"HTTP/1.1 " + status,
        b"%s: %s" % METRICS_TYPE,
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"content-length: %d" % len(body),
        b"connection: close",
    )
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body if with_body else b"")
