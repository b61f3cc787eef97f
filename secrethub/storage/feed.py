"""Hearing of changes early: LISTEN, a slow poll beside it, and coalesced NOTIFY after commit.

Correctness never rests on this (see ``freshness.py``); it keeps caches warm and pushes prompt. When
the listening connection is lost the caches are dropped, and it connects again by itself.
NOTIFY is sent after the commit and not in it, because inside a transaction it serialises commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import asyncpg

from secrethub.background import Background
from secrethub.errors import IntegrityFailure, SecretHubError, Unavailable
from secrethub.storage.database import FAILURES, Database
from secrethub.storage.freshness import CHANNEL, Caches
from secrethub.storage.ledger import Ledger

_POLL_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_PACE_SECONDS = 0.02
"""Between two looks, or two notifications, where changes come without a pause."""
_LOST: tuple[type[Exception], ...] = (Unavailable, IntegrityFailure, asyncpg.PostgresError, *FAILURES)
"""What a lost connection raises, wherever it is met; the driver's own confusion about it too."""

_log = logging.getLogger(__name__)


class Feed:
    """Keeps this process's caches close to the database, and tells others of our commits."""

    def __init__(self, database: Database, caches: Caches, ledger: Ledger) -> None:
        self._database = database
        self._caches = caches
        self._ledger = ledger
        self._heard = asyncio.Event()
        self._told = asyncio.Event()
        self._background = Background()
        self._said = ""
        self.healthy_at = 0.0
        """``time.monotonic()`` of the last successful look."""

    def start(self) -> None:
        """Begin to listen and to notify."""
        self._background.begin("feed-listen", self._listen)
        self._background.begin("feed-notify", self._tell)

    async def stop(self) -> None:
        """End both tasks."""
        await self._background.end()

    def notify(self) -> None:
        """Tell the other processes, soon, that something was committed; cheap and coalesced."""
        self._told.set()
        self._heard.set()

    async def _tell(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            try:
                async with self._database.read() as connection:
                    await connection.execute(f"NOTIFY {CHANNEL}")
                await asyncio.sleep(_PACE_SECONDS)
            except Unavailable:
                # The others poll as well.
                await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self) -> None:
        while True:
            connection: asyncpg.Connection[Any] | None = None
            try:
                connection = await self._database.connect()
                await connection.add_listener(CHANNEL, lambda *_: self._heard.set())
                await self._look()
                await self._follow(connection)
            except _LOST as exc:
                self._say(str(exc) if isinstance(exc, SecretHubError) else type(exc).__name__)
                self._caches.flush()
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                if connection is not None:
                    connection.terminate()

    def _say(self, text: str) -> None:
        """Say once what is wrong, not twice a second for as long as it lasts."""
        if text != self._said:
            _log.warning("the change feed was lost and starts again: %s", text)
        self._said = text

    async def _follow(self, connection: asyncpg.Connection[Any]) -> None:
        while not connection.is_closed():
            # Not wait_for(), which loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._heard.wait()
            self._heard.clear()
            await self._look()
            await asyncio.sleep(_PACE_SECONDS)
        raise Unavailable("the listening connection was closed")

    async def _look(self) -> None:
        await self._ledger.look()
        self.healthy_at = time.monotonic()
        self._said = ""
