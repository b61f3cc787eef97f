"""Slots of key services with real actors in one process and clouds of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ceremony_steps import carried_out, events, given, keys_of, open_after_outage, opens_by_itself
from seal_steps import NODE, crash, keyring_bytes, row_of, stopped_at, successor, unsealed, until

from actors.handles import SealClient
from actors.local import LocalTree
from actors.tree import KEY_HOLDER, SEAL_STATE, actor_name
from cluster.kms import OPENER, Services
from secrethub.errors import (
    DecryptionFailed,
    IntegrityFailure,
    InvalidRequest,
    NotFound,
    Unavailable,
    WrongShare,
)
from secrethub.node import NodeSettings
from secrethub.seal.kms_slots import kms_secret
from secrethub.seal.slots import KmsSlot, make_share_set, open_with, slot_mac
from secrethub.seal.warrant import is_unsealed
from secrethub.seal.wishes import Rekey, RemoveSlot
from secrethub.storage.database import Database
from secrethub.storage.seal_slots import load_slots
from tests.clouds import aws_cloud, gcp_cloud
from tests.clouds.cloud import Cloud, something_else

HOLDER = actor_name(KEY_HOLDER, NODE)


@pytest.fixture
def google(tmp_path: Path) -> Iterator[Cloud]:
    """Google's key service."""
    with gcp_cloud.running(tmp_path) as started:
        yield started


@pytest.fixture
def settings(settings: NodeSettings, google: Cloud) -> NodeSettings:
    """A node whose settings have one key of a key service."""
    return msgspec.structs.replace(settings, key_services=(google.settings,), key_service_opener=OPENER)


async def with_slot(client: SealClient, shares: tuple[bytes, ...], kind: str = "gcpckms") -> str:
    """Add a slot of a key service; return its id."""
    service = {"gcpckms": "gcp", "awskms": "aws"}[kind]
    begun = await client.ceremonies.add_slot(kind, service)  # type: ignore[arg-type]
    return (await given(client, "slots", begun.nonce, shares)).progress.slot_id


async def without_shares(client: SealClient, shares: tuple[bytes, ...]) -> str:
    """Leave a slot of a key service alone; return the id of what are recovery shares then."""
    await with_slot(client, shares)
    (first, _) = await client.ceremonies.slots()
    await carried_out(client, "slots", RemoveSlot(slot_id=first.slot_id), shares)
    return first.slot_id


@contextlib.asynccontextmanager
async def restarted(tree: LocalTree, settings: NodeSettings, psk: bytes) -> AsyncIterator[SealClient]:
    """End every process that held a key, and start again."""
    await tree.stop()
    again = LocalTree(settings)
    await again.start()
    try:
        yield SealClient(again.handles, psk)
    finally:
        await again.stop()


async def test_a_key_service_opens_after_a_full_outage(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """With a slot of a key service the cluster opens by itself, and that is written down."""
    keys = await unsealed(client, 3, 2)
    before = await keyring_bytes(tree, psk, database)
    slot_id = await with_slot(client, keys[:2])
    assert [(slot.kind, slot.service) for slot in await client.ceremonies.slots()] == [
        ("shamir", ""),
        ("gcpckms", "gcp"),
    ]
    await client.ceremonies.try_slot(slot_id)
    status = await client.status()
    assert (status.kind, status.recovery, [kind for _, kind in status.slots]) == (
        "shamir",
        False,
        ["shamir", "gcpckms"],
    )
    assert await keyring_bytes(tree, psk, database) == before
    async with restarted(tree, settings, psk) as again:
        await opens_by_itself(again)
    told = await events(database)
    assert told[-2:] == [("sys.auto-unseal", "intent"), ("sys.auto-unseal", "done")]
    assert ("sys.slots", "intent") in told


async def test_a_key_service_that_is_away_takes_nothing(
    tree: LocalTree,
    settings: NodeSettings,
    client: SealClient,
    psk: bytes,
    database: Database,
    google: Cloud,
) -> None:
    """A running cluster goes on without it, and after a full outage the shares open as ever."""
    keys = await unsealed(client, 3, 2)
    slot_id = await with_slot(client, keys[:2])
    google.close()
    with pytest.raises(Unavailable):
        await client.ceremonies.try_slot(slot_id)
    await crash(SEAL_STATE)
    await opens_by_itself(client)
    result = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), keys[1:])
    new = keys_of(result)
    await client.ceremonies.settle(result.progress.slot_id)
    assert await keyring_bytes(tree, psk, database)
    await tree.stop()
    again = LocalTree(settings)
    await again.start()
    try:
        second = SealClient(again.handles, psk)

        async def failed() -> bool:
            return ("sys.auto-unseal", "failed") in await events(database)

        await until(failed)
        assert (await second.status()).sealed
        for share in new[:2]:
            await second.submit_share(share)
        assert not (await second.status()).sealed
    finally:
        await again.stop()


async def test_any_one_slot_opens(settings: NodeSettings, psk: bytes, google: Cloud, tmp_path: Path) -> None:
    """Of two key services the one that is there is enough."""
    with aws_cloud.running(tmp_path) as amazon:
        both = msgspec.structs.replace(settings, key_services=(amazon.settings, google.settings))
        tree = LocalTree(both)
        await tree.start()
        client = SealClient(tree.handles, psk)
        keys = await unsealed(client, 3, 2)
        await with_slot(client, keys[:2])
        await with_slot(client, keys[1:], "awskms")
        google.close()
        async with restarted(tree, both, psk) as again:
            await opens_by_itself(again)


async def test_what_is_no_answer_takes_nothing(
    settings: NodeSettings, psk: bytes, database: Database, tmp_path: Path
) -> None:
    """Where something else answers in a service's place the seal goes on: shares open, and a trial fails."""
    with aws_cloud.running(tmp_path) as amazon:
        tree = LocalTree(msgspec.structs.replace(settings, key_services=(amazon.settings,)))
        await tree.start()
        client = SealClient(tree.handles, psk)
        keys = await unsealed(client, 3, 2)
        slot_id = await with_slot(client, keys[:2], "awskms")
    with something_else() as url:
        odd = msgspec.structs.replace(amazon.settings, endpoint=url)
        async with restarted(tree, msgspec.structs.replace(settings, key_services=(odd,)), psk) as again:

            async def failed() -> bool:
                return ("sys.auto-unseal", "failed") in await events(database)

            await until(failed)
            for key in keys[:2]:
                await again.submit_share(key)
            assert not (await again.status()).sealed
            with pytest.raises(Unavailable):
                await again.ceremonies.try_slot(slot_id)


async def test_a_removed_slot_opens_nothing(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """What a removed slot opened is not the root key any more, and the others open the new one."""
    keys = await unsealed(client, 3, 2)
    slot_id = await with_slot(client, keys[:2])
    (removed,) = [slot for slot in await load_slots(database) if isinstance(slot, KmsSlot)]
    services = Services(settings.key_services)
    old = open_with(removed, await kms_secret(services, removed))
    state: Any = await tree.handles.find(SEAL_STATE)
    assert state._held.reveal() == old
    await carried_out(client, "slots", RemoveSlot(slot_id=slot_id), keys[1:])
    assert state._held.reveal() != old
    (left,) = await load_slots(database)
    with pytest.raises(DecryptionFailed):
        open_with(left, await kms_secret(services, removed))
    async with restarted(tree, settings, psk) as again:
        for share in keys[:2]:
            await again.submit_share(share)
        assert not (await again.status()).sealed


async def test_without_their_slot_shares_decide_and_open_nothing(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes
) -> None:
    """Shares whose slot was removed are recovery shares: they make others, and add and remove slots."""
    keys = await unsealed(client, 3, 2)
    await without_shares(client, keys[:2])
    status = await client.status()
    assert (status.kind, status.recovery, status.shares, status.threshold) == ("gcpckms", True, 3, 2)
    with pytest.raises(InvalidRequest, match="recovery"):
        await client.ceremonies.start("rekey", Rekey(shares=1, threshold=1))
    only = [slot.slot_id for slot in await client.ceremonies.slots() if slot.kind == "gcpckms"]
    with pytest.raises(InvalidRequest, match="last slot"):
        await client.ceremonies.start("slots", RemoveSlot(slot_id=only[0]))
    result = await carried_out(client, "rekey", Rekey(shares=2, threshold=2, recovery=True), keys[1:])
    await client.ceremonies.settle(result.progress.slot_id)
    recovery = keys_of(result)
    wish = Rekey(shares=3, threshold=2, recovery=True, slot=True)
    result = await carried_out(client, "slots", wish, recovery)
    await client.ceremonies.settle(result.progress.slot_id)
    assert [slot.kind for slot in await client.ceremonies.slots()] == ["gcpckms", "shamir"]
    await carried_out(client, "slots", RemoveSlot(slot_id=only[0]), keys_of(result)[:2])
    assert await open_after_outage(settings, tree, psk, keys_of(result)[1:])


async def test_a_cluster_sealed_on_purpose_stays_sealed(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database, google: Cloud
) -> None:
    """No key service is asked after a seal, whoever restarts, until enough recovery shares were given."""
    keys = await unsealed(client, 3, 2)
    await without_shares(client, keys[:2])
    state = await tree.handles.find(SEAL_STATE)
    await client.seal()
    await successor(tree, SEAL_STATE, state)
    async with restarted(tree, settings, psk) as again:
        actor = again._state  # the handle: every look at the database has its turn
        for _ in range(3):
            await actor.call("status")
        assert (await row_of(database)).sealed
        with pytest.raises(WrongShare):
            await again.submit_share(bytes([keys[0][0] ^ 1]) + keys[0][1:])
        await again.submit_share(keys[0])
        assert (await again.status()).progress == 1
        await again.submit_share(keys[2])
        assert not (await again.status()).sealed
    assert ("sys.unseal", "authorised") in await events(database)
    assert ("sys.auto-unseal", "intent") not in await events(database)


async def test_recovery_shares_of_a_stranger_open_nothing(
    tree: LocalTree, client: SealClient, database: Database
) -> None:
    """Whoever writes recovery shares of his own into the database gets a sealed cluster opened by nobody."""
    keys = await unsealed(client, 3, 2)
    slot_id = await without_shares(client, keys[:2])
    row = await row_of(database)
    state: Any = await tree.handles.find(SEAL_STATE)
    await client.seal()
    await successor(tree, SEAL_STATE, state)
    mine, shares = make_share_set(row.cluster_id, 1, 1, opens=False)
    async with database.write() as connection:
        await connection.execute(
            "UPDATE seal_slots SET slot_id = $2, body = $3, mac = $4 WHERE slot_id = $1",
            slot_id,
            mine.slot_id,
            msgspec.msgpack.encode(mine),
            slot_mac(bytes(32), mine),
        )
    await crash(SEAL_STATE)
    with pytest.raises(IntegrityFailure):
        await client.submit_share(shares[0])
    assert (await row_of(database)).sealed


async def test_what_cannot_be_done_with_slots_is_refused(client: SealClient) -> None:
    """Keys that the settings do not have, slots that do not exist, shares as a service, the last slot."""
    await unsealed(client, 3, 2)
    (only,) = await client.ceremonies.slots()
    for kind, service in (("awskms", "gcp"), ("gcpckms", "other"), ("azurekeyvault", "")):
        with pytest.raises(InvalidRequest, match="settings"):
            await client.ceremonies.add_slot(kind, service)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="no slot"):
        await client.ceremonies.start("slots", RemoveSlot(slot_id="5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10"))
    with pytest.raises(InvalidRequest, match="last slot"):
        await client.ceremonies.start("slots", RemoveSlot(slot_id=only.slot_id))
    with pytest.raises(InvalidRequest, match="already"):
        await client.ceremonies.start("slots", Rekey(shares=1, threshold=1, recovery=True, slot=True))
    with pytest.raises(NotFound):
        await client.ceremonies.try_slot("5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10")
    with pytest.raises(InvalidRequest, match="people"):
        await client.ceremonies.try_slot(only.slot_id)


@pytest.mark.parametrize("victims", [(SEAL_STATE,), (HOLDER,), (SEAL_STATE, HOLDER)])
@pytest.mark.parametrize("committed", [False, True])
async def test_the_end_of_processes_while_a_slot_is_removed(
    tree: LocalTree,
    settings: NodeSettings,
    client: SealClient,
    psk: bytes,
    database: Database,
    victims: tuple[str, ...],
    committed: bool,
) -> None:
    """Before or after the commit the shares open, the removed slot does so only before it."""
    keys = await unsealed(client, 3, 2)
    slot_id = await with_slot(client, keys[:2])
    begun = await client.ceremonies.start("slots", RemoveSlot(slot_id=slot_id))
    await client.ceremonies.give("slots", keys[0], begun.nonce)
    actors = {name: await tree.handles.find(name) for name in victims}
    where = ("audit_entries", "NEW.operation = 'sys.slots' AND NEW.outcome = 'done'")
    if not committed:
        where = ("changes_of_slots", "true")
        async with database.write() as connection:
            await connection.execute(
                """CREATE TABLE changes_of_slots (at timestamptz);
                   CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
                   BEGIN INSERT INTO changes_of_slots VALUES (now()); RETURN NULL; END $$;
                   CREATE TRIGGER note AFTER DELETE ON seal_slots FOR EACH ROW EXECUTE FUNCTION note()"""
            )
    async with stopped_at(settings.database_url, *where) as there:
        last = asyncio.create_task(client.ceremonies.give("slots", keys[1], begun.nonce))
        await there()
        await asyncio.gather(*(crash(name) for name in victims))
    for name, actor in actors.items():
        await successor(tree, name, actor)
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    assert ("sys.slots", "intent") in await events(database)
    left = {slot.slot_id for slot in await load_slots(database)}
    assert slot_id not in left or not committed
    assert await open_after_outage(settings, tree, psk, keys[1:])


async def test_who_writes_that_it_is_unsealed_has_no_service_asked(
    client: SealClient, settings: NodeSettings, database: Database
) -> None:
    """A cluster sealed on purpose stays closed, whatever a database writer says; the shares open it."""
    keys = await unsealed(client, 3, 2)
    await with_slot(client, keys[:2])
    seen = Path(settings.state_dir)
    unsealed_row = await row_of(database)

    async def witnessed(epoch: int) -> bool:
        found = [json.loads(file.read_bytes()) for file in seen.glob("witness-*.json")]
        return any(witness["seal_epoch"] == epoch for witness in found)

    await until(lambda: witnessed(unsealed_row.seal_epoch))
    await client.seal()
    sealed_row = await row_of(database)

    async def write(statement: str, *values: object) -> None:
        async with database.write() as connection:
            await connection.execute(statement, *values)

    async def refused() -> bool:
        return ("sys.auto-unseal", "failed") in await events(database)

    async def rolled_back() -> bool:
        return bool((await row_of(database)).rolled_back)

    await until(lambda: witnessed(sealed_row.seal_epoch))
    await write("UPDATE cluster SET sealed = false, unsealed_mac = $1", unsealed_row.unsealed_mac)
    await until(refused)
    assert (await client.status()).sealed
    # What shows the former unseal fits the former epoch, which every node knows to be over.
    await write("UPDATE cluster SET seal_epoch = $1", unsealed_row.seal_epoch)
    await until(rolled_back)
    assert (await client.status()).sealed
    for share in keys[1:]:
        await client.accept_restore(share)
    assert not (await client.status()).sealed
    assert ("sys.auto-unseal", "intent") not in await events(database)


async def test_shares_open_what_nobody_shows_to_be_unsealed(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """With another pre-shared key no service is asked after an outage, until shares have opened it."""
    keys = await unsealed(client, 3, 2)
    await with_slot(client, keys[:2])
    Path(settings.cluster_key_file).write_text("ab" * 32)
    async with restarted(tree, settings, bytes.fromhex("ab" * 32)) as again:

        async def refused() -> bool:
            return ("sys.auto-unseal", "failed") in await events(database)

        await until(refused)
        assert (await again.status()).sealed
        for share in keys[:2]:
            await again.submit_share(share)
        assert not (await again.status()).sealed
        row = await row_of(database)
        assert is_unsealed(bytes.fromhex("ab" * 32), row.cluster_id, row.seal_epoch, row.unsealed_mac)
        assert not is_unsealed(psk, row.cluster_id, row.seal_epoch, row.unsealed_mac)
