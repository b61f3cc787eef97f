"""Rekey on a real Ray: SIGKILL in its middle leaves shares that open, and a cluster that goes on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
from typing import Any

import asyncpg
import pytest

from actors.handles.remote import RayHandle
from secrethub.errors import Unavailable, WrongShare
from secrethub.seal.wishes import Rekey
from tests.postgres.seal.seal_steps import stopped_at
from tests.ray.test_actors_on_ray import HOLDER, PATIENCE, SEAL_STATE, keyring_of, pid_of, replaced, row_of


async def opened_with(cluster: Any, shares: tuple[bytes, ...]) -> None:
    """Seal, and unseal with these shares."""
    old = await pid_of(RayHandle(SEAL_STATE))
    await cluster.seal().seal()
    await replaced(SEAL_STATE, old)
    async with asyncio.timeout(PATIENCE):
        # A process that is lost in between, by a supervisor that gave up, takes what it was given along.
        unsealed = False
        while not unsealed:
            with contextlib.suppress(Unavailable):
                for share in shares:
                    with contextlib.suppress(WrongShare):
                        await cluster.seal().submit_share(share)
                unsealed = not (await cluster.seal().status()).sealed


@pytest.mark.parametrize("victim", [SEAL_STATE, HOLDER])
@pytest.mark.parametrize("committed", [False, True])
async def test_a_kill_in_the_middle_of_a_rekey(cluster: Any, victim: str, *, committed: bool) -> None:
    """Before and after the commit the cluster goes on with the same keyring, and the old shares open it."""
    before, first = await keyring_of(cluster), await row_of(cluster)
    ceremonies = cluster.seal().ceremonies
    begun = await ceremonies.start("rekey", Rekey(shares=3, threshold=2))
    await ceremonies.give("rekey", cluster.shares[0], begun.nonce)
    where = ("seal_slots", "true")
    if committed:
        where = ("audit_entries", "NEW.operation = 'sys.rekey' AND NEW.outcome = 'done'")
    old = await pid_of(RayHandle(victim))
    async with stopped_at(cluster.database_url, *where) as there:
        last = asyncio.create_task(ceremonies.give("rekey", cluster.shares[1], begun.nonce))
        await there()
        os.kill(old, signal.SIGKILL)
        if victim == HOLDER:
            await replaced(victim, old)
    await replaced(victim, old)
    done = (await asyncio.gather(last, return_exceptions=True))[0]
    async with asyncio.timeout(PATIENCE):
        sealed = True
        while sealed:
            with contextlib.suppress(Unavailable):
                sealed = (await cluster.seal().status()).sealed
            await asyncio.sleep(0.1)
    assert await keyring_of(cluster) == before
    connection = await asyncpg.connect(cluster.database_url)
    try:
        intents = await connection.fetchval(
            "SELECT count(*) FROM audit_entries WHERE operation = 'sys.rekey' AND outcome = 'intent'"
        )
    finally:
        await connection.close()
    assert intents > 0
    moved = (await row_of(cluster)).root_version > first.root_version
    assert moved or not committed
    # What was answered counts: the new shares open, and whoever has none goes on with the old ones.
    await opened_with(cluster, cluster.shares[:2])
    if not isinstance(done, BaseException):
        await opened_with(cluster, tuple(base64.b64decode(text) for text in done.secret[:2]))
    # The next test begins with the shares that the fixture knows.
    await back_to(cluster, done)


async def back_to(cluster: Any, done: Any) -> None:
    """Let the cluster's known shares be replaced by those that count now."""
    if not isinstance(done, BaseException):
        object.__setattr__(cluster, "shares", tuple(base64.b64decode(text) for text in done.secret))
