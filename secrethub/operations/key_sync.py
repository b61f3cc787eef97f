"""Keeps a serving process's keyring in step with the seal.

A dumb loop: look at the cluster's row; sealed there means no keys here; unsealed there and none here
means asking this node's KeyHolder. While there are keys it keeps the data keys up. A storage error
changes nothing: it never seals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from secrethub.background import Background
from secrethub.engines.runtime import Core, SealStatus
from secrethub.engines.seal_status import described
from secrethub.errors import SecretHubError, Unavailable
from secrethub.storage.freshness import Changed
from secrethub.storage.key_users import BEAT_SECONDS, dropped_keys, hold_keys
from secrethub.storage.seal_slots import load_slots
from secrethub.storage.seal_store import load_cluster

_IDLE_SECONDS = 1.0
_WAITING_SECONDS = 0.25
_FIRST_SECONDS = 2.0
_UNKNOWN = (-1, 0.0)
"""What the database was told when there was no answer."""

_log = logging.getLogger(__name__)


class KeySync:
    """The loop and what wakes it."""

    def __init__(self, core: Core, name: str) -> None:
        self._core = core
        self._name = name
        self._told: tuple[int, float] | None = None
        """The epoch whose keys the database was last told to be here, and when; None when it was told that
        there are none."""
        self._background = Background()
        self._said = ""
        core.caches.subscribe(self._announced)

    def _announced(self, change: Changed) -> None:
        if change.kind in {"seal", "keyring"}:
            self._core.keys_due.set()

    async def start(self) -> None:
        """Look once, so that the first request finds a known state, and go on."""
        with contextlib.suppress(SecretHubError, TimeoutError):
            await asyncio.wait_for(self.step(), _FIRST_SECONDS)
        self._background.begin("key-sync", self._run)

    async def stop(self) -> None:
        """End."""
        await self._background.end()
        with contextlib.suppress(SecretHubError):
            await self._say_dropped()

    async def _run(self) -> None:
        while True:
            self._core.keys_due.clear()
            try:
                waiting = await self.step()
            except SecretHubError as exc:
                self._say(f"{exc.code}: {exc}")
                waiting = True
            else:
                self._say("")
            # Not wait_for(), which loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAITING_SECONDS if waiting else _IDLE_SECONDS):
                    await self._core.keys_due.wait()

    def _say(self, text: str) -> None:
        if text and text != self._said:
            _log.warning("keys of this process: %s", text)
        self._said = text

    async def _say_held(self, epoch: int) -> None:
        """Say that keys of an epoch are here, or may be in a moment; but only now and then."""
        at = time.monotonic()
        if self._told is not None and self._told[0] == epoch and at - self._told[1] < BEAT_SECONDS:
            return
        self._told = _UNKNOWN
        shown = f"{self._core.settings.node}/{self._name}"
        await hold_keys(self._core.database, shown, epoch)
        self._told = epoch, at

    async def _say_dropped(self) -> None:
        if self._told is not None:
            await dropped_keys(self._core.database)
            self._told = None

    async def step(self) -> bool:
        """Look once; return whether something is still to come."""
        core = self._core
        if core.unsealed:
            await self._say_held(core.keys.epoch)
            await core.data_keys.keep_up()
            return False
        cluster = await load_cluster(core.database)
        if cluster is None:
            core.seal_status = SealStatus(initialised=False, sealed=True)
            return True
        core.seal_status = described(cluster, await load_slots(core.database), sealed=cluster.sealed)
        if cluster.sealed:
            if core.keys.held:
                core.lock()
            await self._say_dropped()
            return True
        # Said before, so that no seal ends in between and knows nothing of these keys.
        await self._say_held(cluster.seal_epoch)
        keyring = await core.seal.keyring(cluster.cluster_id, core.settings.node, cluster.seal_epoch)
        await core.unseal(keyring, cluster.seal_epoch, cluster.cluster_id)
        if not core.unsealed:
            raise Unavailable("the seal changed while the keyring was on its way")
        _log.info("keyring received for seal epoch %d", cluster.seal_epoch)
        return False
