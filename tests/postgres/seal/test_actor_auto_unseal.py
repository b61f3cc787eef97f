"""A cluster that opens by itself: when a key service is asked, and what goes on while it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ceremony_steps import carried_out, events, given, opens_by_itself
from seal_steps import NODE, keyring_bytes, row_of, unsealed, until

from actors.handles import LocalHandles, SealClient
from actors.key_holder import KeyHolder
from actors.local import LocalTree
from actors.node_witness import NodeWitness
from actors.seal_state import SealState
from actors.tree import KEY_HOLDER, SEAL_STATE, actor_name
from secrethub.clock import Clock, SystemClock
from secrethub.errors import PutBack, Unavailable
from secrethub.node import NodeSettings
from secrethub.seal.wishes import RemoveSlot
from secrethub.storage.checkpoints import newest_checkpoint
from secrethub.storage.database import Database
from secrethub.storage.restore import commit_rolled_back
from secrethub.storage.witness_file import load
from tests.clouds import door as doors
from tests.clouds.door import Door


class Standing(SystemClock):
    """A clock that goes on only as a test says."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        """What the test says."""
        return self.at


@pytest.fixture
def door() -> Iterator[Door]:
    """The door of the key service."""
    with doors.hung() as door:
        yield door


@pytest.fixture
def settings(settings: NodeSettings, door: Door) -> NodeSettings:
    """A node whose settings have the key behind the door."""
    return msgspec.structs.replace(settings, key_services=(door.settings,), key_service_opener=doors.OPENER)


@pytest.fixture
async def keys(client: SealClient, door: Door) -> tuple[bytes, ...]:
    """Shares of an open cluster, two of which open it, and so does the key service."""
    made = await unsealed(client, 3, 2)
    begun = await client.ceremonies.add_slot("gcpckms", door.settings.name)
    await given(client, "slots", begun.nonce, made[:2])
    return made


@contextlib.asynccontextmanager
async def restarted(
    tree: LocalTree, settings: NodeSettings, clock: Clock | None = None
) -> AsyncIterator[LocalTree]:
    """End every process that held a key, and start again."""
    await tree.stop()
    again = LocalTree(settings, clock=clock)
    await again.start()
    try:
        yield again
    finally:
        await again.stop()


async def test_each_pause_is_longer_up_to_a_minute(
    tree: LocalTree, settings: NodeSettings, keys: tuple[bytes, ...], database: Database, door: Door
) -> None:
    """A service that is away is asked again after about 1, 2, 4, … seconds, and each minute in the end."""
    assert len(keys) == 3
    door.shut = True
    clock = Standing()
    async with restarted(tree, settings, clock) as again:
        state: Any = await again.handles.find(SEAL_STATE)
        for failures, longest in enumerate((1, 2, 4, 8, 16, 32, 60, 60), 1):

            async def known(failures: int = failures) -> bool:
                return bool(state._attempts.failures == failures)

            await until(known)
            asked = door.asked
            # The first half of a pause has no chance in it: nobody is asked before.
            clock.at += longest * 0.49
            await state._unseal_by_itself()
            assert (door.asked, state._attempts.failures) == (asked, failures)
            clock.at += longest * 0.52
    # Each is in the log; the ledger is not filled with them.
    assert (await events(database)).count(("sys.auto-unseal", "failed")) == 1


async def test_a_service_that_comes_back_opens_the_cluster(
    tree: LocalTree,
    settings: NodeSettings,
    keys: tuple[bytes, ...],
    psk: bytes,
    database: Database,
    door: Door,
) -> None:
    """Nobody has to do anything, and shares that were given meanwhile are not needed any more."""
    before = await keyring_bytes(tree, psk, database)
    epoch = (await row_of(database)).seal_epoch
    door.shut = True
    async with restarted(tree, settings) as again:
        client = SealClient(again.handles, psk)
        await client.submit_share(keys[0])

        async def asked_twice() -> bool:
            return door.asked >= 2

        door.asked = 0
        await until(asked_twice)
        status = await client.status()
        assert (status.sealed, status.progress) == (True, 1)
        door.shut = False
        await opens_by_itself(client)
        assert (await client.status()).progress == 0
        assert await keyring_bytes(again, psk, database) == before
    assert (await row_of(database)).seal_epoch == epoch + 1
    told = [event for event in await events(database) if event[0] == "sys.auto-unseal"]
    assert told == [("sys.auto-unseal", outcome) for outcome in ("failed", "intent", "done")]


@contextlib.asynccontextmanager
async def passive(
    settings: NodeSettings, psk: bytes
) -> AsyncIterator[tuple[LocalHandles, SealState, KeyHolder]]:
    """A SealState and a KeyHolder, not yet to be found by it, that do what they are told and no more."""
    handles = LocalHandles(NODE)
    parts: dict[str, Any] = {
        "node": NODE,
        "handles": handles,
        "psk": psk,
        "witness": NodeWitness(Path(settings.state_dir)),
    }
    state = SealState(
        **parts,
        database=Database(settings.database_url, size=2),
        clock=SystemClock(),
        services=doors.Services(settings.key_services),
    )
    holder = KeyHolder(**parts, database=Database(settings.database_url, size=2))
    try:
        yield handles, state, holder
    finally:
        await state.close()
        await holder.close()


async def test_no_service_is_asked_before_a_key_holder_answers(
    tree: LocalTree,
    settings: NodeSettings,
    keys: tuple[bytes, ...],
    psk: bytes,
    database: Database,
    door: Door,
) -> None:
    """When everything starts the key-holders come after SealState: it waits for one, which is no failure."""
    assert len(keys) == 3
    await tree.stop()
    asked = door.asked
    async with passive(settings, psk) as (handles, state, holder):
        for _ in range(2):
            await state._unseal_by_itself()
        assert (door.asked, (await state.health())["holds"]) == (asked, False)
        await handles.enter(actor_name(KEY_HOLDER, NODE), holder)
        await state._unseal_by_itself()
        assert (await state.health())["holds"] is True
    told = [event for event in await events(database) if event[0] == "sys.auto-unseal"]
    assert told == [("sys.auto-unseal", "intent"), ("sys.auto-unseal", "done")]


async def test_no_service_opens_a_database_that_was_put_back(
    tree: LocalTree,
    settings: NodeSettings,
    keys: tuple[bytes, ...],
    psk: bytes,
    database: Database,
    door: Door,
) -> None:
    """A key-holder looks before any service is asked: what its node knows to be older stays sealed."""
    cluster, seen = (await row_of(database)).cluster_id, Path(settings.state_dir)

    async def witnessed() -> bool:
        newest, kept = await newest_checkpoint(database), load(seen, cluster)
        return newest is not None and kept is not None and kept.signed == newest

    await until(witnessed)
    await tree.stop()
    async with database.write() as connection:
        await connection.execute(
            "DELETE FROM audit_checkpoints WHERE sequence = (SELECT max(sequence) FROM audit_checkpoints)"
        )
    asked = door.asked
    async with passive(settings, psk) as (handles, state, holder):
        await handles.enter(actor_name(KEY_HOLDER, NODE), holder)
        for _ in range(2):
            await state._unseal_by_itself()
            row = await row_of(database)
            assert (row.sealed, row.rolled_back, door.asked) == (True, "older", asked)
        await handles.enter(SEAL_STATE, state)
        for key in keys[:2]:
            await SealClient(handles, psk).accept_restore(key)
        assert (await state.health())["holds"] is True


async def test_shares_open_while_a_service_keeps_everybody_waiting(
    tree: LocalTree,
    settings: NodeSettings,
    keys: tuple[bytes, ...],
    psk: bytes,
    database: Database,
    door: Door,
) -> None:
    """Who asks a service keeps nobody from the seal, and an answer that comes too late changes nothing."""
    door.answered.clear()
    asked = door.asked
    async with restarted(tree, settings) as again:
        client = SealClient(again.handles, psk)
        state: Any = await again.handles.find(SEAL_STATE)
        attempt = asyncio.create_task(state._unseal_by_itself())

        async def waited_for() -> bool:
            return door.asked == asked + 2  # by this attempt, and by the actor's own

        await until(waited_for)
        for key in keys[:2]:
            await client.submit_share(key)
        held, opened = state._held, await row_of(database)
        assert not opened.sealed
        door.answered.set()
        await attempt
        assert state._held is held
        assert not (await client.status()).sealed
        assert await row_of(database) == opened
    assert ("sys.auto-unseal", "intent") not in await events(database)


async def test_an_open_cluster_asks_no_service(
    tree: LocalTree,
    settings: NodeSettings,
    keys: tuple[bytes, ...],
    psk: bytes,
    database: Database,
    door: Door,
) -> None:
    """While the root key is anywhere no service is asked, so one that is away takes nothing."""
    assert len(keys) == 3
    asked, before = door.asked, await row_of(database)
    assert not before.sealed
    door.shut = True
    newer = SealState(
        node="n2",
        database=Database(settings.database_url, size=2),
        handles=tree.handles,
        psk=psk,
        clock=SystemClock(),
        services=doors.Services(settings.key_services),
    )
    try:
        for _ in range(2):
            await newer._unseal_by_itself()
            assert (await newer.health())["holds"]
    finally:
        await newer.close()
    assert door.asked == asked
    assert await row_of(database) == before
    assert await keyring_bytes(tree, psk, database)


async def test_recovery_shares_accept_a_restore(
    tree: LocalTree, client: SealClient, keys: tuple[bytes, ...], psk: bytes, database: Database, door: Door
) -> None:
    """No service opens a database that was put back before enough recovery shares have accepted that."""
    before = await keyring_bytes(tree, psk, database)
    (first, _) = await client.ceremonies.slots()
    await carried_out(client, "slots", RemoveSlot(slot_id=first.slot_id), keys[:2])
    await commit_rolled_back(database, "older", known=1)
    state: Any = await tree.handles.find(SEAL_STATE)
    asked = door.asked
    for _ in range(2):
        await state._unseal_by_itself()
    assert door.asked == asked
    with pytest.raises(PutBack):
        await client.submit_share(keys[0])
    for shut in (True, False):
        door.shut = shut
        await client.accept_restore(keys[0])
        row = await row_of(database)
        assert (row.sealed, row.rolled_back, (await client.status()).progress) == (True, "older", 1)
        with pytest.raises(Unavailable) if shut else contextlib.nullcontext():
            await client.accept_restore(keys[2])
    row = await row_of(database)
    assert (row.sealed, row.rolled_back, row.timeline) == (False, "", 2)
    assert await keyring_bytes(tree, psk, database) == before
    told = [outcome for operation, outcome in await events(database) if operation == "sys.accept-restore"]
    assert told == ["progress", "authorised", "progress", "authorised", "intent", "done"]
