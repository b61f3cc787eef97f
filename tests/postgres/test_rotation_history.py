"""What is kept of rotations that ended: no more than the bound, of each rotation by itself."""

from __future__ import annotations

import asyncpg

from secrethub.crypto.keyring import Keyring
from secrethub.storage.rotations import KEPT, Past, add_past, history


def past(number: int) -> Past:
    """Return a run that ended."""
    return Past(
        number=number,
        outcome="done",
        trigger="request",
        old_version=number - 1,
        new_version=number,
        began_at=number,
        ended_at=number + 1,
        missing=0,
        reason="",
    )


async def test_the_oldest_run_goes(database_url: str) -> None:
    """One run more than the bound takes the oldest away, and nothing of another rotation."""
    keyring = Keyring.generate()
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await add_past(connection, keyring, "other", past(1))
            for number in range(1, KEPT + 2):
                await add_past(connection, keyring, "one", past(number))
        found = await history(connection, keyring, "one", before=KEPT + 2, limit=KEPT + 2)
        assert [run.number for run in found] == list(range(KEPT + 1, 1, -1))
        assert await history(connection, keyring, "other", before=2, limit=2) == [past(1)]
    finally:
        await connection.close()
