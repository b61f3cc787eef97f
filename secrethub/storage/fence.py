"""The check, inside the changing transaction, that its decision is as new as the database.

A decision that was overtaken is taken again. So that this ends also while authority changes without a
pause, whoever was overtaken may wait for its *turn*: no change of authority is made meanwhile, so the next
decision holds. Locks are always taken in this order: the process's own turn, ``TURN``, ``LOCK``, buckets of
authority, rows. ``LOCK`` is described in ``freshness.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg

from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.database import FAILURES, Database
from secrethub.storage.freshness import LOCK

TURN = 7305086391846016
"""Held by every change of authority, and by whoever decides in its turn."""


class Fence(Protocol):
    """What a decision rests on."""

    @property
    def generation(self) -> int:
        """The authority generation."""

    @property
    def seal_epoch(self) -> int:
        """The seal epoch."""

    @property
    def in_turn(self) -> bool:
        """Whether the decision was taken inside :meth:`Turns.turn`, which is not left yet."""

    @property
    def written(self) -> list[dict[str, Any]]:
        """What was committed under it and is not in the ledger yet; whoever commits adds to it."""


class Turns:
    """Lets the decisions of one process that were overtaken happen one after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # A turn takes a second connection for its work. So of those who wait for the cluster's only one
        # may hold a connection of ours, or none is left for the work that they wait for.
        self._own = asyncio.Lock()

    @asynccontextmanager
    async def alone(self, fence: Fence) -> AsyncIterator[None]:
        """Let no other change or turn of this process begin until the block ends."""
        if fence.in_turn:
            yield
        else:
            async with self._own:
                yield

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let nobody change authority until the block ends; what is decided inside is not overtaken.

        Sealing the cluster does not wait.

        Raises:
            Unavailable: the turn did not come in time.
        """
        async with self._own, self._database.read() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute("SELECT pg_advisory_xact_lock($1)", TURN)
                yield
            finally:
                # Nothing was written here: a turn that was lost early only means that others had theirs.
                with contextlib.suppress(*FAILURES):
                    await transaction.rollback()


async def hold_shared(connection: asyncpg.Connection[Any], fence: Fence) -> None:
    """Take the freshness lock shared, until the transaction ends, and check ``fence``.

    Raises:
        Stale: authority changed or the cluster was sealed since the decision.
    """
    await connection.execute(
        "SELECT pg_advisory_xact_lock_shared($1), set_config('secrethub.change', 'issued', true)", LOCK
    )
    await _check(connection, fence)


async def hold_shared_for(connection: asyncpg.Connection[Any], fences: Sequence[Fence]) -> list[bool]:
    """Take the freshness lock shared, until the transaction ends; tell which fences hold."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock_shared($1), set_config('secrethub.change', 'issued', true)", LOCK
    )
    now = await connection.fetchrow("SELECT generation, seal_epoch, sealed FROM cluster")
    if now is None or now["sealed"]:
        return [False] * len(fences)
    present = (now["generation"], now["seal_epoch"])
    return [(fence.generation, fence.seal_epoch) == present for fence in fences]


async def hold_exclusive(connection: asyncpg.Connection[Any], fence: Fence) -> int:
    """Take the freshness lock exclusively, check ``fence``, begin a new authority generation, return it.

    Raises:
        Stale: authority changed or the cluster was sealed since the decision.
        IntegrityFailure: the database does not count.
    """
    if not fence.in_turn:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", TURN)
        # Whoever comes too late finds out before it makes all others wait.
        await _check(connection, fence)
    await connection.execute(
        "SELECT pg_advisory_xact_lock($1), set_config('secrethub.change', 'authority', true)", LOCK
    )
    moved = await connection.fetchval(
        """UPDATE cluster SET generation = generation + 1
           WHERE generation = $1 AND seal_epoch = $2 AND NOT sealed RETURNING generation""",
        fence.generation,
        fence.seal_epoch,
    )
    if moved is None:
        raise Stale("authority moved on")
    if moved != fence.generation + 1:
        raise IntegrityFailure("cluster", "generation", "the database does not count changes")
    return fence.generation + 1


async def _check(connection: asyncpg.Connection[Any], fence: Fence) -> None:
    current = await connection.fetchval(
        "SELECT generation = $1 AND seal_epoch = $2 AND NOT sealed FROM cluster",
        fence.generation,
        fence.seal_epoch,
    )
    if not current:
        raise Stale("authority moved on")
