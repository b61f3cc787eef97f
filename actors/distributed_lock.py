"""DistributedLock: the cluster's named locks, one holder each, with fencing numbers.

The locks are rows in PostgreSQL (:mod:`secrethub.storage.locks`); this actor holds nothing. So a
restart loses no lock, and two incarnations at once cannot give one lock to two holders.
"""

from __future__ import annotations

import asyncio
import os

from actors.tree import DISTRIBUTED_LOCK
from secrethub.storage import locks
from secrethub.storage.database import Database
from secrethub.storage.locks import HeldLock


class DistributedLock:
    """Gives locks to whoever asks first.

    Promise: of all holders of a name, at most one is unexpired by the database's clock, and each has
    a larger fencing number than those before. Every call may be repeated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended = asyncio.Event()
        self._given = 0

    def __repr__(self) -> str:
        return "DistributedLock()"

    async def acquire(self, name: str, owner: str, ttl: float) -> HeldLock | None:
        """Take the lock ``name`` for ``ttl`` seconds; None when somebody else holds it."""
        lock = await locks.acquire(self._database, name, owner, ttl)
        self._given += lock is not None
        return lock

    async def renew(self, lock: HeldLock, ttl: float) -> HeldLock | None:
        """Hold ``lock`` for ``ttl`` seconds from now; None when it is lost."""
        return await locks.renew(self._database, lock, ttl)

    async def release(self, lock: HeldLock) -> bool:
        """Give ``lock`` back; False when it was not held any more."""
        return await locks.release(self._database, lock)

    async def health(self) -> dict[str, object]:
        """Tell what this incarnation has done."""
        return {"name": DISTRIBUTED_LOCK, "pid": os.getpid(), "given": self._given}

    async def hold(self) -> None:
        """Live until closed."""
        await self._ended.wait()

    async def close(self) -> None:
        """Let go of the database."""
        self._ended.set()
        await self._database.close()
