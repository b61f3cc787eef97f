"""Write-ahead log that is there before it is needed.

PostgreSQL writes to segments of 16 MiB. It uses again those that a checkpoint has set free; where there are
none it fills a new one with zeros, and whoever commits waits for that, a tenth of a second each time. A
database that is new has none, so under load it would wait some ten times in its first seconds.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import asyncpg

KEPT_MIB = 256
"""Segments to have and to keep (``min_wal_size``), together: some 250,000 entries of the ledger."""
_SEGMENTS = 15
"""As many, without the one that is written to."""
ROOM = 4 * KEPT_MIB << 20
"""Bytes that must be free before that: PostgreSQL ends where a segment does not fit."""

_AHEAD = "SELECT count(*) FROM pg_ls_waldir() WHERE name > pg_walfile_name(pg_current_wal_insert_lsn())"
_NEXT = "SELECT pg_switch_wal() FROM pg_logical_emit_message(true, '', '')"
"""An empty segment is not left for the next one."""

_log = logging.getLogger(__name__)


async def make_ahead(url: str, folder: Path, *, after: float, room: int = ROOM) -> None:
    """Have PostgreSQL make its segments now, if most of them are missing and there is plenty of room.

    A failure is only logged: segments are made when they are needed, then.

    Args:
        url: the database's.
        folder: of its data.
        after: seconds to wait first, for each segment keeps whoever commits waiting.
        room: bytes that must be free.
    """
    await asyncio.sleep(after)
    try:
        if shutil.disk_usage(folder).free < room:
            return
        connection = await asyncpg.connect(url)
        try:
            if await connection.fetchval(_AHEAD) >= _SEGMENTS // 2:
                return
            for _ in range(_SEGMENTS):
                await connection.execute(_NEXT)
            # It sets those free that were just left.
            await connection.execute("CHECKPOINT")
        finally:
            # Not in good order, for which a server that stands still would be waited for.
            connection.terminate()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        _log.warning("the write-ahead log was not made beforehand: %s", type(exc).__name__)
