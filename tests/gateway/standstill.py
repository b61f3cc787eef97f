"""A database that stands still at a statement, so that whoever sent it can be killed just there.

A trigger waits for a lock that the test holds. The statement is never carried out: its session is ended
before the lock is given back.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg

from tests.gateway.behind import until

_WAITING = """SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
              AND (classid::bigint << 32 | objid::bigint) = $1"""


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
    key = secrets.randbelow(1 << 62)
    holder: asyncpg.Connection[Any] = await asyncpg.connect(url)
    try:
        await holder.execute(f"SELECT pg_advisory_lock({key})")
        await holder.execute(
            f"""CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN IF {when} THEN PERFORM pg_advisory_xact_lock({key}); END IF;
                   RETURN COALESCE(NEW, OLD); END $$"""
        )
        await holder.execute(
            f"CREATE TRIGGER stand_still BEFORE {event} FOR EACH ROW EXECUTE FUNCTION stand_still()"
        )

        async def reached() -> None:
            await until(lambda: holder.fetch(_WAITING, key))

        yield reached
    finally:
        await holder.fetch(f"SELECT pg_terminate_backend(pid, 10000) FROM ({_WAITING}) AS waiting", key)
        await holder.execute("DROP FUNCTION stand_still CASCADE")
        await holder.close()
