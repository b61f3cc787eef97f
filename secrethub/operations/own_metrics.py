"""What one process counts, offered to the others of its node on a private socket.

One of them merges the metrics of all and serves them (``serve/metrics.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from prometheus_client import generate_latest

from secrethub.engines.runtime import Core


def metrics_folder(core: Core) -> Path:
    """Return where the node's processes have their sockets."""
    return Path(core.settings.run_dir) / "metrics"


class OwnMetrics:
    """The metrics of one process.

    Attributes:
        name: of the process, unique on its node.
    """

    def __init__(self, core: Core, process: str) -> None:
        """Prepare.

        Args:
            core: the process.
            process: what kind of process it is.
        """
        self._core = core
        self.name = f"{process}-{os.getpid()}"
        self._server: asyncio.Server | None = None

    def text(self) -> bytes:
        """Return them as they are now, in Prometheus' text format."""
        metrics, ledger = self._core.metrics, self._core.ledger
        metrics.audit_lag.set(ledger.lag)
        metrics.audit_waiting.set(ledger.waiting)
        metrics.audit_entries.set(ledger.entries)
        metrics.unsealed.set(1 if self._core.unsealed else 0)
        return generate_latest(metrics.registry)

    async def start(self) -> None:
        """Offer them."""
        metrics_folder(self._core).mkdir(mode=0o700, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._offer, self._path)

    async def stop(self) -> None:
        """Offer them no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return metrics_folder(self._core) / f"{self.name}.sock"

    async def _offer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self.text())
            await writer.drain()
        writer.close()
