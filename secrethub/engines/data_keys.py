"""The data keys of one serving process: learning of new ones, and counting what is sealed.

A new data key is announced (``storage/data_keys.py``), every process fetches the keyring, and the key seals
once it had time to spread. Whoever meets a value under a key that it has not learned of yet fetches the
keyring before it goes on, so no read fails for want of a key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from secrethub.clock import Clock
from secrethub.crypto.keyring import SPREAD_SECONDS, Keyring
from secrethub.storage.data_keys import reserve
from secrethub.storage.database import Database
from secrethub.storage.freshness import Caches, Changed

BLOCK = 1 << 16
"""Uses that a process reserves at once: 13 seconds' worth of what one can seal."""

_log = logging.getLogger(__name__)


class DataKeys:
    """Keeps a process's keyring as new as the cluster's."""

    def __init__(
        self,
        database: Database,
        caches: Caches,
        clock: Clock,
        keyring: Callable[[], Keyring],
        fetch: Callable[[], Awaitable[Keyring]],
    ) -> None:
        """Prepare.

        Args:
            database: where uses are counted.
            caches: announce new data keys.
            clock: the time.
            keyring: gives this process's keyring or raises ``Sealed``.
            fetch: gets the cluster's from this node's key-holder.
        """
        self._database = database
        self._clock = clock
        self._keyring = keyring
        self._fetch = fetch
        self.spread: float = SPREAD_SECONDS
        """Age in seconds at which a new data key begins to seal: 0 is enough for one process."""
        self._fetching = asyncio.Lock()
        self._announced = 0
        self._missed = False
        """Whether an announcement may have been missed."""
        caches.subscribe(self._note)
        caches.on_flush(self._miss)

    def _note(self, change: Changed) -> None:
        if change.kind == "keyring":
            self._announced = max(self._announced, change.version)

    def _miss(self) -> None:
        self._missed = True

    async def count(self, keyring: Keyring) -> None:
        """Seal with the data key that is due, and reserve uses of it before it runs out of them.

        One that was used as often as it may be seals nothing any more.

        Args:
            keyring: this process's; one that was just received is counted before anybody can seal with it.

        Raises:
            Sealed: it was wiped.
            Unavailable: the database does not answer.
        """
        number, left = keyring.due(self._clock.now().timestamp(), self.spread), keyring.left
        if number == keyring.sealing and left is not None and left >= BLOCK // 2:
            return
        if await reserve(self._database, number, BLOCK):
            keyring.seal_with(number, BLOCK)
        else:
            _log.error("data key %d was used as often as it may be: rotate the keys", number)
            keyring.seal_with(number, 0)

    async def hear(self) -> None:
        """Learn of data keys that were announced, or may have been.

        Raises:
            Sealed: there are no keys.
            Unavailable: the key-holder does not answer.
        """
        async with self._fetching:
            keyring = self._keyring()
            if self._missed or self._announced > keyring.newest:
                self._missed = False
                try:
                    await self._learn(keyring)
                except BaseException:
                    self._missed = True
                    raise

    async def keep_up(self) -> None:
        """Count and hear; to be done again and again. Neither waits for the other's success.

        Raises:
            Sealed: there are no keys.
            Unavailable: the database or the key-holder does not answer.
        """
        try:
            await self.count(self._keyring())
        finally:
            await self.hear()

    async def learn_of(self, number: int) -> None:
        """Fetch the keyring because a value names data key ``number``.

        Where the cluster has none such, the keyring says from now on that the value is damaged.

        Raises:
            Sealed: there are no keys.
            Unavailable: the key-holder does not answer.
        """
        async with self._fetching:
            keyring = self._keyring()
            if keyring.expects(number):
                await self._learn(keyring)
                if number > keyring.newest:
                    keyring.rule_out(number)

    async def _learn(self, keyring: Keyring) -> None:
        fetched = await self._fetch()
        try:
            keyring.learn(fetched)
        finally:
            fetched.wipe()
