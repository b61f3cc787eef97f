"""Steps that the tests of the seal share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from actors.handles import SealClient, fetch_keyring
from actors.local import LocalTree
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow, load_cluster
from tests.triggers import add_trigger

NODE = "n1"


async def unsealed(client: SealClient, shares: int = 5, threshold: int = 3) -> tuple[bytes, ...]:
    """Initialise and unseal; return the shares."""
    made = await client.initialise(shares, threshold)
    for share in made.keys[:threshold]:
        await client.submit_share(share)
    assert not (await client.status()).sealed
    return made.keys


async def row_of(database: Database) -> ClusterRow:
    """The cluster's row."""
    row = await load_cluster(database)
    assert row is not None
    return row


async def keyring_bytes(tree: LocalTree, psk: bytes, database: Database) -> bytes:
    """What a gateway gets from its KeyHolder."""
    row = await row_of(database)
    keyring = await fetch_keyring(tree.handles, psk, cluster=row.cluster_id, node=NODE, epoch=row.seal_epoch)
    return keyring.export()


async def crash(name: str) -> None:
    """End an actor's life as a crash would."""
    lives = [task for task in asyncio.all_tasks() if task.get_name() == name]
    assert len(lives) == 1
    lives[0].cancel()
    await asyncio.wait(lives)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something that happens by itself has happened."""
    async with asyncio.timeout(15):
        while not await holds():  # noqa: ASYNC110 - a database cannot signal
            await asyncio.sleep(0.02)


async def successor(tree: LocalTree, name: str, old: object) -> Any:
    """The actor that took over a name."""

    async def replaced() -> bool:
        return await tree.handles.find(name) is not old

    await until(replaced)
    return await tree.handles.find(name)


@asynccontextmanager
async def stopped_at(url: str, table: str, when: str) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Make inserts into ``table`` that fit ``when`` wait until the block ends.

    Yields:
        What waits until one of them is there, or the number it is given of sessions that wait for them.
    """
    connection = await asyncpg.connect(url)
    try:
        body = "PERFORM pg_advisory_xact_lock_shared({lock});"
        lock = await add_trigger(connection, f"INSERT ON {table}", body, when)

        async def there(sessions: int = 1) -> None:
            async def waiting() -> bool:
                return bool(
                    await connection.fetchval(
                        """WITH stopped AS (
                               SELECT pid FROM pg_locks
                               WHERE locktype = 'advisory' AND objid = $1 AND NOT granted
                           )
                           SELECT EXISTS (TABLE stopped) AND $2 <= count(*) FROM pg_locks
                           WHERE NOT granted AND (pid IN (TABLE stopped)
                                 OR pg_blocking_pids(pid) && ARRAY (TABLE stopped))""",
                        lock,
                        sessions,
                    )
                )

            await until(waiting)

        yield there
    finally:
        await connection.close()
