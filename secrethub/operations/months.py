"""The ledger's parts, one a month, are made before their month begins.

Every gateway does it, and one of them finds something to do. Whoever is late loses nothing: entries of a
month without a part are in the part for all others until then, where they are found and verified, too.
"""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from secrethub.errors import SecretHubError
from secrethub.storage.database import Database

AHEAD = 3
"""Months after the present one."""

_SECONDS = 3600.0
_AGAIN_SECONDS = 30.0

_log = logging.getLogger(__name__)


async def make_months(database: Database, ahead: int = AHEAD) -> int:
    """Make the parts of this month and of ``ahead`` more, and return how many were missing.

    Raises:
        Unavailable: the database does not answer, or somebody reads the ledger: nobody is kept waiting.
    """
    async with database.write() as connection:
        await connection.execute("SET LOCAL lock_timeout = '500ms'")
        return int(await connection.fetchval("SELECT ledger_months($1)", ahead))


async def drop_months(database: Database) -> int:
    """Remove the parts of months that are over and were archived as a whole, and return how many.

    Raises:
        Unavailable: the database does not answer, or somebody reads the ledger: nobody is kept waiting.
    """
    async with database.write() as connection:
        await connection.execute("SET LOCAL lock_timeout = '500ms'")
        return int(await connection.fetchval("SELECT ledger_drop_months()"))


async def keep_months(database: Database) -> None:
    """Make parts as long as the process lives."""
    while True:
        seconds = _SECONDS
        try:
            made = await make_months(database)
            if made:
                _log.info("%d parts of the ledger were made ahead", made)
        except (SecretHubError, asyncpg.PostgresError) as exc:
            _log.warning("parts of the ledger could not be made ahead: %s", type(exc).__name__)
            seconds = _AGAIN_SECONDS
        await asyncio.sleep(seconds)
