"""Rekey and root tokens with real actors in one process: who decides, what opens, what a crash leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from ceremony_steps import OTP, carried_out, events, given, keys_of, open_after_outage
from seal_steps import NODE, crash, keyring_bytes, row_of, stopped_at, successor, unsealed

from actors.handles import SealClient
from actors.handles.keys import CEREMONY_INFO, SHARE_INFO
from actors.local import LocalTree
from actors.tree import KEY_HOLDER, SEAL_STATE, actor_name
from secrethub.crypto import notary_key
from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring, unwrap
from secrethub.crypto.sealed_box import Recipient, proof, seal_to
from secrethub.errors import (
    Conflict,
    DecryptionFailed,
    IntegrityFailure,
    InvalidRequest,
    Sealed,
    UnknownKey,
    WrongShare,
)
from secrethub.node import NodeSettings
from secrethub.seal.slots import ShamirSlot, make_shamir_slot, open_slot
from secrethub.seal.wishes import GenerateRoot, Rekey, decode_token
from secrethub.storage.database import Database
from secrethub.storage.seal_slots import load_slots

HOLDER = actor_name(KEY_HOLDER, NODE)


async def test_new_shares_take_the_old_ones_place(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """After a rekey and its delivery the new shares open, the old ones do not, the keyring is the same."""
    old = await unsealed(client)
    before = await keyring_bytes(tree, psk, database)
    first = await row_of(database)
    result = await carried_out(client, "rekey", Rekey(shares=4, threshold=2), old[:3])
    new = keys_of(result)
    assert len(new) == 4
    await client.ceremonies.settle(result.progress.slot_id)
    row = await row_of(database)
    assert (row.seal_epoch, row.root_version) == (first.seal_epoch, first.root_version + 2)
    assert await keyring_bytes(tree, psk, database) == before
    assert row.notary_public == first.notary_public
    status = await client.status()
    assert (status.sealed, status.shares, status.threshold) == (False, 4, 2)
    await client.seal()
    with pytest.raises(WrongShare):
        await client.submit_share(old[0])
    assert await open_after_outage(settings, tree, psk, new[2:])
    assert [event for event in await events(database) if event[0].startswith("sys.rekey")] == [
        ("sys.rekey-start", "done"),
        ("sys.rekey", "progress"),
        ("sys.rekey", "progress"),
        ("sys.rekey", "intent"),
        ("sys.rekey", "done"),
        ("sys.rekey-settle", "intent"),
        ("sys.rekey-settle", "done"),
    ]


async def test_the_former_root_key_opens_nothing_any_more(
    tree: LocalTree, client: SealClient, database: Database
) -> None:
    """Old shares, and the root key that they open in an old copy, open nothing that a rekey leaves."""
    old = await unsealed(client, 3, 2)
    (slot,) = await load_slots(database)
    assert isinstance(slot, ShamirSlot)
    root = open_slot(slot, old[:2])
    result = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[:2])
    await client.ceremonies.settle(result.progress.slot_id)
    state: Any = await tree.handles.find(SEAL_STATE)
    assert state._held.reveal() != root
    (after,) = await load_slots(database)
    assert isinstance(after, ShamirSlot)
    with pytest.raises(WrongShare):
        open_slot(after, old[:2])
    new = open_slot(after, keys_of(result)[:2])
    assert new == state._held.reveal()
    row = await row_of(database)
    notary_key.unwrap(new, row.wrapped_notary, row.cluster_id, row.notary_public)
    with pytest.raises(DecryptionFailed):
        notary_key.unwrap(root, row.wrapped_notary, row.cluster_id, row.notary_public)
    with pytest.raises(DecryptionFailed):
        unwrap(root, row.wrapped_keyring, row.cluster_id, row.keyring_revision)


async def test_an_old_copy_has_the_data_keys_of_then(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """Old shares and an old copy open what the data keys in it seal later, until those are rotated."""
    old = await unsealed(client, 3, 2)
    copy, (slot,) = await row_of(database), await load_slots(database)
    assert isinstance(slot, ShamirSlot)
    result = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[:2])
    await client.ceremonies.settle(result.progress.slot_id)
    kept = unwrap(open_slot(slot, old[:2]), copy.wrapped_keyring, copy.cluster_id, copy.keyring_revision)
    place = Place(table="t", column="c", row="r", version=1)

    async def later() -> bytes:
        return Keyring.load(await keyring_bytes(tree, psk, database)).seal(b"x", place)

    assert kept.open(await later(), place) == b"x"
    await client.rotate(1)
    with pytest.raises(UnknownKey):
        kept.open(await later(), place)


async def test_verification_comes_before_the_change(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """With verification the old shares hold until enough new ones were given back, then the new ones do."""
    old = await unsealed(client, 3, 2)
    first = await row_of(database)
    result = await carried_out(client, "rekey", Rekey(shares=3, threshold=2, verify=True), old[:2])
    new = keys_of(result)
    assert (await row_of(database)).root_version == first.root_version
    assert (await client.ceremonies.attempt("rekey")).verification == result.progress.verification
    with pytest.raises(Conflict):
        await client.ceremonies.start("rekey", Rekey(shares=1, threshold=1))
    check = result.progress.verification
    with pytest.raises(WrongShare):
        await client.ceremonies.give("rekey-verify", old[0], check)
    await client.ceremonies.give("rekey-verify", new[0], check)
    await client.ceremonies.cancel("rekey-verify")
    again = await client.ceremonies.attempt("rekey-verify")
    assert (again.progress, again.nonce != check) == (0, True)
    with pytest.raises(InvalidRequest):
        await client.ceremonies.give("rekey-verify", new[0], check)
    await given(client, "rekey-verify", again.nonce, new)
    assert not (await client.ceremonies.attempt("rekey")).started
    assert len(await load_slots(database)) == 1
    assert await open_after_outage(settings, tree, psk, new[1:])


async def test_a_cancelled_verification_leaves_the_old_shares(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes
) -> None:
    """Who cancels a rekey that waits for its verification keeps the old shares; the new ones are nothing."""
    old = await unsealed(client, 3, 2)
    result = await carried_out(client, "rekey", Rekey(shares=3, threshold=2, verify=True), old[:2])
    await client.ceremonies.cancel("rekey")
    with pytest.raises(InvalidRequest):
        await client.ceremonies.give("rekey-verify", keys_of(result)[0], result.progress.verification)
    await client.seal()
    with pytest.raises(WrongShare):
        await client.submit_share(keys_of(result)[0])
    assert await open_after_outage(settings, tree, psk, old[1:])


async def test_an_undelivered_rekey_leaves_both_sets(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """Until the new shares were handed over either set opens and decides; unsealing with it ends that."""
    old = await unsealed(client, 3, 2)
    first = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[:2])
    # Nobody said that the answer arrived. The old shares still decide:
    second = await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[1:])
    assert len(await load_slots(database)) == 2
    with pytest.raises(WrongShare):
        await carried_out(client, "generate-root", GenerateRoot(otp=OTP), keys_of(first))
    await client.seal()
    for share in keys_of(second)[:2]:
        await client.submit_share(share)
    assert len(await load_slots(database)) == 1
    await client.seal()
    with pytest.raises(WrongShare):
        await client.submit_share(old[0])
    assert await open_after_outage(settings, tree, psk, keys_of(second)[1:])


async def test_a_wrong_share_is_named_and_blocks_nobody(client: SealClient) -> None:
    """Unknown, repeated and malformed shares, and a wrong nonce, are refused by themselves."""
    old = await unsealed(client, 3, 2)
    begun = await client.ceremonies.start("rekey", Rekey(shares=1, threshold=1))
    await client.ceremonies.give("rekey", old[0], begun.nonce)
    wrong = {"malformed": old[1][:-1], "unknown": bytes([old[1][0] ^ 1]) + old[1][1:], "duplicate": old[0]}
    for reason, share in wrong.items():
        with pytest.raises(WrongShare) as refused:
            await client.ceremonies.give("rekey", share, begun.nonce)
        assert refused.value.reason == reason
    with pytest.raises(InvalidRequest, match="nonce"):
        await client.ceremonies.give("rekey", old[1], "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10")
    assert (await client.ceremonies.attempt("rekey")).progress == 1
    result = await client.ceremonies.give("rekey", old[2], begun.nonce)
    assert result.progress.complete


async def test_a_seal_ends_every_attempt(client: SealClient) -> None:
    """Sealed, nothing can be begun or gone on with; unsealed again, attempts begin from nothing."""
    old = await unsealed(client, 3, 2)
    begun = await client.ceremonies.start("generate-root", GenerateRoot(otp=OTP))
    await client.ceremonies.give("generate-root", old[0], begun.nonce)
    await client.seal()
    for call in (
        client.ceremonies.start("rekey", Rekey(shares=1, threshold=1)),
        client.ceremonies.attempt("rekey"),
        client.ceremonies.give("generate-root", old[1], begun.nonce),
    ):
        with pytest.raises(Sealed):
            await call
    for share in old[:2]:
        await client.submit_share(share)
    assert not (await client.ceremonies.attempt("generate-root")).started


async def test_a_rekey_ends_other_attempts(client: SealClient) -> None:
    """Shares that were given for something else do not count any more once they were replaced."""
    old = await unsealed(client, 3, 2)
    begun = await client.ceremonies.start("generate-root", GenerateRoot(otp=OTP))
    await client.ceremonies.give("generate-root", old[0], begun.nonce)
    await carried_out(client, "rekey", Rekey(shares=3, threshold=2), old[:2])
    assert not (await client.ceremonies.attempt("generate-root")).started


async def test_a_slot_of_a_stranger_gets_nothing(
    tree: LocalTree, client: SealClient, database: Database
) -> None:
    """A slot that somebody wrote into the database stops a rekey, and no root key is sealed to it."""
    old = await unsealed(client, 3, 2)
    begun = await client.ceremonies.start("rekey", Rekey(shares=1, threshold=1))
    await client.ceremonies.give("rekey", old[0], begun.nonce)
    row = await row_of(database)
    strange, shares = make_shamir_slot(row.cluster_id, bytes(32), 1, 1)
    async with database.write() as connection:
        await connection.execute(
            "INSERT INTO seal_slots VALUES ($1, 'shamir', $2, now(), $3)",
            strange.slot_id,
            msgspec.msgpack.encode(strange),
            bytes(32),
        )
    with pytest.raises(IntegrityFailure):
        await client.ceremonies.give("rekey", old[1], begun.nonce)
    with pytest.raises(IntegrityFailure):
        await client.ceremonies.start("generate-root", GenerateRoot(otp=OTP))
    found = {slot.slot_id: slot for slot in await load_slots(database)}[strange.slot_id]
    assert isinstance(found, ShamirSlot)
    assert open_slot(found, shares) == bytes(32)
    assert (await row_of(database)).root_version == row.root_version


async def test_a_root_token_is_made_and_hidden(client: SealClient, database: Database) -> None:
    """Enough shares make a root token, which only whoever knows the one-time password can read."""
    old = await unsealed(client, 3, 2)
    result = await carried_out(client, "generate-root", GenerateRoot(otp=OTP), old[:2])
    (encoded,) = result.secret
    assert "=" not in encoded
    assert decode_token(encoded, OTP).startswith("hvs.")
    async with database.read() as connection:
        rows = await connection.fetch("SELECT body->>'display_name' AS name FROM tokens")
    assert [row["name"] for row in rows] == ["root", "root"]


async def test_a_lost_answer_is_given_again_to_the_same_request(
    tree: LocalTree, client: SealClient, psk: bytes
) -> None:
    """A repeated call with the last share gets the answer of the first one, and nothing is done twice."""
    old = await unsealed(client, 1, 1)
    begun = await client.ceremonies.start("rekey", Rekey(shares=1, threshold=1))
    state = tree.handles.seal_state()
    box = seal_to(await state.call("public_key"), old[0], psk, SHARE_INFO)
    recipient = Recipient()
    shown = proof(psk, recipient.public, CEREMONY_INFO)
    first = await state.call("give", "rekey", box, begun.nonce, recipient.public, shown)
    again = await state.call("give", "rekey", box, begun.nonce, recipient.public, shown)
    assert first == again
    other = Recipient()
    shown = proof(psk, other.public, CEREMONY_INFO)
    box = seal_to(await state.call("public_key"), old[0], psk, SHARE_INFO)
    with pytest.raises(InvalidRequest, match="no rekey"):
        await state.call("give", "rekey", box, begun.nonce, other.public, shown)


@pytest.mark.parametrize("victims", [(SEAL_STATE,), (HOLDER,), (SEAL_STATE, HOLDER)])
@pytest.mark.parametrize("committed", [False, True])
async def test_the_end_of_processes_in_a_rekey_leaves_shares_that_open(
    tree: LocalTree,
    settings: NodeSettings,
    client: SealClient,
    psk: bytes,
    database: Database,
    victims: tuple[str, ...],
    committed: bool,
) -> None:
    """Before or after the commit the old shares open; while one holder lives the seal goes on."""
    old = await unsealed(client, 3, 2)
    before = await keyring_bytes(tree, psk, database)
    first = await row_of(database)
    begun = await client.ceremonies.start("rekey", Rekey(shares=3, threshold=2))
    await client.ceremonies.give("rekey", old[0], begun.nonce)
    actors = {name: await tree.handles.find(name) for name in victims}
    where = ("seal_slots", "true")
    if committed:
        where = ("audit_entries", "NEW.operation = 'sys.rekey' AND NEW.outcome = 'done'")
    async with stopped_at(settings.database_url, *where) as there:
        last = asyncio.create_task(client.ceremonies.give("rekey", old[1], begun.nonce))
        await there()
        await asyncio.gather(*(crash(name) for name in victims))
    for name, actor in actors.items():
        await successor(tree, name, actor)
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    version = (await row_of(database)).root_version
    assert version > first.root_version or not committed
    if len(victims) == 1:
        assert not (await client.status()).sealed
        assert await keyring_bytes(tree, psk, database) == before
    assert ("sys.rekey", "intent") in await events(database)
    assert await open_after_outage(settings, tree, psk, old[:2])
