"""Triggers that tests put on tables which servers are using.

They stay, and do something only while a test holds their lock: to drop one would lock the table and its parts
against all who use them just then.
"""

from __future__ import annotations

import secrets
from typing import Any

import asyncpg


async def add_trigger(connection: asyncpg.Connection[Any], event: str, body: str, when: str = "true") -> int:
    """Add a trigger before an event such as ``INSERT ON locks``; return the number of its lock.

    The connection holds the lock from before there is a trigger until it is closed.

    Args:
        connection: of the test.
        event: which statements.
        body: statements of PL/pgSQL; ``{lock}`` is the number.
        when: condition on ``NEW`` and ``OLD``.
    """
    lock = secrets.randbelow(2**31)
    await connection.execute(f"SELECT pg_advisory_lock({lock})")
    await connection.execute("SET lock_timeout = '100ms'")
    while True:
        try:
            await connection.execute(
                f"""CREATE FUNCTION test_{lock}() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF {when} THEN {body.format(lock=lock)} END IF;
                       RETURN COALESCE(NEW, OLD); END $$;
                    CREATE TRIGGER test_{lock} BEFORE {event} FOR EACH ROW EXECUTE FUNCTION test_{lock}()"""
            )
        except asyncpg.LockNotAvailableError:
            continue  # whoever waits for a table while others wait behind him may close a circle
        await connection.execute("RESET lock_timeout")
        return lock
