"""A database that stands still at a statement, so that whoever sent it can be killed just there.

A trigger waits for a lock that the test holds. The statement is never carried out: its session is ended
before the lock is given back.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg

from tests.gateway.behind import until
from tests.triggers import add_trigger

_WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid::bigint = $1"


@contextlib.asynccontextmanager
async def standing_still(
    url: str, event: str, when: str = "true"
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Let statements such as ``INSERT ON locks`` stand still; yield what waits until one does.

    Args:
        url: of the database.
        event: which statements.
        when: condition on ``NEW`` and ``OLD``.
    """
    holder: asyncpg.Connection[Any] = await asyncpg.connect(url)
    try:
        lock = await add_trigger(holder, event, "PERFORM pg_advisory_xact_lock_shared({lock});", when)

        async def reached() -> None:
            await until(lambda: holder.fetch(_WAITING, lock))

        try:
            yield reached
        finally:
            await holder.fetch(f"SELECT pg_terminate_backend(pid, 10000) FROM ({_WAITING}) AS waiting", lock)
    finally:
        await holder.close()
