"""Serving processes reduced to what decides authority: a database, caches, and authenticated rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Fence
from secrethub.operations import seal_lifecycle
from secrethub.seal.slots import open_slot
from secrethub.storage.authority import Authority
from secrethub.storage.authority_rows import Table
from secrethub.storage.database import Database
from secrethub.storage.freshness import Caches
from secrethub.storage.ledger import Ledger

ROWS = Table("pki_roles", 64)
"""A small table in which a fresh cluster has one row only."""


@dataclass
class Office:
    """One process's view of the authority rows."""

    url: str
    keyring: Keyring
    database: Database
    caches: Caches
    ledger: Ledger
    authority: Authority

    @property
    def fence(self) -> Fence:
        """What a decision taken now rests on."""
        return Fence(generation=self.caches.generation, seal_epoch=self.caches.seal_epoch, written=[])

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement behind Core's back."""
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def put(self, table: Table, key: str, body: dict[str, Any]) -> None:
        """Write one row as a change of authority."""
        await self.ledger.look()
        async with self.authority.change(self.fence) as change:
            await change.put(table, key, body)
        await self.ledger.look()

    async def delete(self, table: Table, key: str) -> bool:
        """Delete one row as a change of authority."""
        await self.ledger.look()
        async with self.authority.change(self.fence) as change:
            gone = await change.delete(table, key)
        await self.ledger.look()
        return gone

    async def body(self, table: Table, key: str) -> dict[str, Any] | None:
        """Return a row's body as decisions see it now."""
        await self.ledger.look()
        row = await self.authority.get(table, key)
        return None if row is None else dict(row.body)


async def founded(url: str) -> Keyring:
    """Make a cluster at ``url``, unsealed, and return its keyring."""
    database = Database(url, size=2)
    try:
        made = await seal_lifecycle.initialise(database, 1, 1, datetime.now(UTC))
        slot = (await seal_lifecycle.load_slots(database))[0]
        root_key = open_slot(slot, made.shares)
        await seal_lifecycle.commit_unsealed(database, root_key, bytes(32))
        return await seal_lifecycle.open_keyring(database, root_key)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def opened(url: str, keyring: Keyring, *, size: int = 6, slow: float = 1.0) -> AsyncIterator[Office]:
    """One process of the cluster at ``url``, with its ledger running."""
    database, caches = Database(url, size=size), Caches()
    ledger = Ledger(
        database, caches, node="n1", process="test", key=lambda: keyring.derived("audit-sign"), slow=slow
    )
    authority = Authority(database, caches, lambda: keyring)
    ledger.start()
    await ledger.look()
    await authority.load_floors()
    try:
        yield Office(url, keyring, database, caches, ledger, authority)
    finally:
        await ledger.stop()
        await database.close()


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> None:
    """Wait until ``condition`` gives something."""
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


def sharing(table: Table, key: str, count: int) -> list[str]:
    """Return names of rows in the bucket of ``key``, which is the first of them."""
    names, number = [key], 0
    while len(names) < count:
        number += 1
        name = f"{key}-{number}"
        if table.bucket(name) == table.bucket(key):
            names.append(name)
    return names


def apart(table: Table, key: str) -> str:
    """Return the name of a row in another bucket than that of ``key``."""
    return next(f"{key}-{n}" for n in range(1000) if table.bucket(f"{key}-{n}") != table.bucket(key))
