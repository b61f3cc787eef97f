"""Slots that are removed while nobody may have the newest shares, with real actors in one process."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from ceremony_steps import OTP, Keys, carried_out, events, given, keys_of
from seal_steps import successor, unsealed

from actors.handles import SealClient
from actors.local import LocalTree
from actors.tree import SEAL_STATE
from secrethub.errors import IntegrityFailure, InvalidRequest, WrongShare
from secrethub.node import NodeSettings
from secrethub.seal.wishes import GenerateRoot, Rekey, RemoveSlot
from secrethub.storage.database import Database
from tests.clouds import pocket


@pytest.fixture
def settings(settings: NodeSettings) -> NodeSettings:
    """A node whose settings have a key of a key service."""
    return msgspec.structs.replace(
        settings, key_services=(pocket.SETTINGS,), key_service_opener=pocket.OPENER
    )


async def with_service(client: SealClient, shares: Keys) -> str:
    """Add a slot of a key service; return its id."""
    begun = await client.ceremonies.add_slot("gcpckms", pocket.SETTINGS.name)
    return (await given(client, "slots", begun.nonce, shares)).progress.slot_id


async def kinds(client: SealClient) -> list[tuple[str, bool]]:
    """The kinds of the slots, and whether they are leaving."""
    return [(slot.kind, slot.leaving) for slot in await client.ceremonies.slots()]


async def decide(client: SealClient, shares: Keys) -> bool:
    """Tell whether shares may decide."""
    try:
        return (await carried_out(client, "generate-root", GenerateRoot(otp=OTP), shares)).progress.complete
    except WrongShare:
        await client.ceremonies.cancel("generate-root")
        return False


async def test_shares_that_decide_go_on_deciding(client: SealClient) -> None:
    """Old shares take the slot of new ones that nobody got: they still decide, and nobody's shares open."""
    old = await unsealed(client, 3, 2)
    await with_service(client, old[:2])
    lost = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[:2])
    await carried_out(client, "slots", RemoveSlot(slot_id=lost.progress.slot_id), old[1:])
    assert await kinds(client) == [("recovery", True), ("gcpckms", False), ("recovery", False)]
    assert await decide(client, old[:2])
    assert await decide(client, keys_of(lost)[:2])
    again = await carried_out(client, "rekey", Rekey(shares=3, threshold=2, recovery=True), old[:2])
    await client.ceremonies.settle(again.progress.slot_id)
    assert await kinds(client) == [("gcpckms", False), ("recovery", False)]
    assert await decide(client, keys_of(again)[:2])
    assert not await decide(client, old[:2])


async def test_new_shares_remove_their_slot_and_old_ones(client: SealClient) -> None:
    """Who has the new shares removes their slot: the old ones are not needed any more, and go."""
    old = await unsealed(client, 3, 2)
    await with_service(client, old[:2])
    made = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[:2])
    await carried_out(client, "slots", RemoveSlot(slot_id=made.progress.slot_id), keys_of(made)[:2])
    assert await kinds(client) == [("gcpckms", False), ("recovery", False)]
    assert not await decide(client, old[:2])


async def test_old_shares_do_not_take_themselves_away(client: SealClient, database: Database) -> None:
    """A set that is leaving is removed by the new shares only: nobody else has shown that he has them."""
    old = await unsealed(client, 3, 2)
    (first,) = await client.ceremonies.slots()
    made = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[:2])
    begun = await client.ceremonies.start("slots", RemoveSlot(slot_id=first.slot_id))
    await client.ceremonies.give("slots", old[0], begun.nonce)
    with pytest.raises(InvalidRequest, match="newest"):
        await client.ceremonies.give("slots", old[1], begun.nonce)
    assert await kinds(client) == [("shamir", True), ("shamir", False)]
    assert (await events(database))[-1] == ("sys.slots", "refused")
    # The attempt goes on: others may have the new ones.
    assert (await given(client, "slots", begun.nonce, keys_of(made))).progress.complete
    assert await kinds(client) == [("shamir", False)]
    assert not await decide(client, old[:2])


async def test_a_slot_that_was_edited_is_not_decided_about(client: SealClient, database: Database) -> None:
    """Where a slot's row is another one than this cluster wrote, the last share does nothing and is noted."""
    shares = await unsealed(client, 3, 2)
    service = await with_service(client, shares[:2])
    begun = await client.ceremonies.start("slots", RemoveSlot(slot_id=service))
    await client.ceremonies.give("slots", shares[0], begun.nonce)
    async with database.write() as connection:
        await connection.execute("UPDATE seal_slots SET mac = sha256(mac) WHERE slot_id = $1", service)
    with pytest.raises(IntegrityFailure):
        await client.ceremonies.give("slots", shares[1], begun.nonce)
    assert (await events(database))[-1] == ("sys.slots", "refused")


async def test_what_surely_opens_is_not_removed(client: SealClient) -> None:
    """Recovery shares take no key service away while the only other way in are shares that may be lost."""
    recovery = await unsealed(client, 3, 2)
    service = await with_service(client, recovery[:2])
    (first, _) = await client.ceremonies.slots()
    await carried_out(client, "slots", RemoveSlot(slot_id=first.slot_id), recovery[:2])
    wish = Rekey(shares=3, threshold=2, recovery=True, slot=True)
    made = await carried_out(client, "slots", wish, recovery[:2])
    begun = await client.ceremonies.start("slots", RemoveSlot(slot_id=service))
    await client.ceremonies.give("slots", recovery[0], begun.nonce)
    with pytest.raises(InvalidRequest, match="last slot"):
        await client.ceremonies.give("slots", recovery[1], begun.nonce)
    assert (await given(client, "slots", begun.nonce, keys_of(made))).progress.complete
    assert ("gcpckms", False) not in await kinds(client)


async def test_new_recovery_shares_that_open_end_the_old_ones(tree: LocalTree, client: SealClient) -> None:
    """Who has a sealed cluster opened with new recovery shares has them: the old ones decide no more.

    Each of the changes makes another root key.
    """
    old = await unsealed(client, 3, 2)
    await with_service(client, old[:2])
    (first, _) = await client.ceremonies.slots()
    await carried_out(client, "slots", RemoveSlot(slot_id=first.slot_id), old[:2])
    state: Any = await tree.handles.find(SEAL_STATE)
    roots = [state._held.reveal()]
    made = await carried_out(client, "rekey", Rekey(shares=3, threshold=2, recovery=True), old[:2])
    roots.append(state._held.reveal())
    assert ("recovery", True) in await kinds(client)
    await client.seal()
    state = await successor(tree, SEAL_STATE, state)
    for share in keys_of(made)[:2]:
        await client.submit_share(share)
    assert not (await client.status()).sealed
    assert await kinds(client) == [("gcpckms", False), ("recovery", False)]
    assert not await decide(client, old[:2])
    assert await decide(client, keys_of(made)[:2])
    roots.append(state._held.reveal())
    assert len({*roots}) == len(roots)
