"""What the newest checkpoint of the ledger is, and for how long entries have been waiting for one."""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import Gauge

from secrethub.audit.checkpoint import Signed
from secrethub.background import Background
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.storage.checkpoints import newest_checkpoint, waiting

_SECONDS = 1.0

_log = logging.getLogger(__name__)


class CheckpointWatch:
    """A dumb loop that looks once a second.

    Attributes:
        newest: the newest checkpoint seen.
    """

    def __init__(self, core: Core) -> None:
        """Prepare.

        Args:
            core: whose database and metrics.
        """
        self.newest: Signed | None = None
        self._core = core
        self._since: tuple[int, float] | None = None
        self._background = Background()
        registry = core.metrics.registry
        self._sequence = Gauge(
            "secrethub_audit_checkpoint",
            "Number of the newest signed checkpoint of the audit ledger.",
            registry=registry,
        )
        self._made = Gauge(
            "secrethub_audit_checkpoint_timestamp_seconds",
            "When the newest checkpoint was made, seconds since the epoch.",
            registry=registry,
        )
        self._age = Gauge(
            "secrethub_audit_checkpoint_age_seconds",
            "For how long audit entries have been waiting for a checkpoint, 0 when none waits.",
            registry=registry,
        )

    def start(self) -> None:
        """Begin to look."""
        self._background.begin("checkpoint-watch", self._run)

    async def stop(self) -> None:
        """End."""
        await self._background.end()

    async def step(self) -> None:
        """Look once.

        Raises:
            Unavailable: the database does not answer.
            IntegrityFailure: the newest checkpoint cannot be read.
        """
        newest = await newest_checkpoint(self._core.database)
        if newest is not None:
            self.newest = newest
            self._sequence.set(newest.checkpoint.sequence)
            self._made.set(newest.checkpoint.at / 1_000_000)
        sequence, now = await waiting(self._core.database), self._core.clock.monotonic()
        if sequence is None:
            self._since = None
        elif self._since is None or self._since[0] != sequence:
            self._since = (sequence, now)
        self._age.set(0 if self._since is None else now - self._since[1])

    async def _run(self) -> None:
        while True:
            try:
                await self.step()
            except SecretHubError as exc:
                _log.debug("the newest checkpoint is not known: %s", exc.code)
            await asyncio.sleep(_SECONDS)
