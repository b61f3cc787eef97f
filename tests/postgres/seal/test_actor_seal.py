"""The seal with real actors in one process: what is refused, what survives, what is written down."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from seal_steps import NODE, crash, keyring_bytes, row_of, stopped_at, successor, unsealed, until

from actors.handles import SealClient, fetch_keyring
from actors.handles.keys import SHARE_INFO
from actors.local import LocalTree
from actors.seal_state import SealState
from actors.tree import AUDIT_NOTARY, KEY_HOLDER, SEAL_STATE, actor_name
from secrethub.audit.verification import LedgerVerifier
from secrethub.clock import SystemClock
from secrethub.crypto.keyring import Keyring
from secrethub.crypto.sealed_box import seal_to
from secrethub.errors import (
    Conflict,
    InvalidRequest,
    NotInitialised,
    Sealed,
    Unavailable,
    WrongShare,
)
from secrethub.node import NodeSettings
from secrethub.storage.database import Database
from secrethub.storage.ledger_read import row_pages, snapshot


async def test_a_cluster_is_made_once_and_opened_by_its_shares(client: SealClient) -> None:
    """Init answers shares and a root token once; three of five shares unseal, one after the other."""
    assert not (await client.status()).initialised
    made = await client.initialise(5, 3)
    assert len(made.keys) == 5
    assert made.root_token.startswith("hvs.")
    with pytest.raises(Conflict):
        await client.initialise(5, 3)
    progress = []
    for share in made.keys[1:4]:
        status = await client.status()
        progress.append((status.sealed, status.progress, status.threshold, status.shares))
        await client.submit_share(share)
    assert progress == [(True, 0, 3, 5), (True, 1, 3, 5), (True, 2, 3, 5)]
    status = await client.status()
    assert (status.initialised, status.sealed, status.progress) == (True, False, 0)
    await client.submit_share(made.keys[0])


async def test_a_wrong_share_is_named_and_blocks_nobody(client: SealClient) -> None:
    """Malformed, unknown and repeated shares are refused by themselves; the right ones still open."""
    made = await client.initialise(3, 2)
    await client.submit_share(made.keys[0])
    wrong = {
        "malformed": made.keys[1][:-1],
        "unknown": bytes([made.keys[1][0] ^ 1]) + made.keys[1][1:],
        "duplicate": made.keys[0],
    }
    for reason, share in wrong.items():
        with pytest.raises(WrongShare) as refused:
            await client.submit_share(share)
        assert refused.value.reason == reason
        assert (await client.status()).progress == 1
    await client.submit_share(made.keys[2])
    assert not (await client.status()).sealed


async def test_reset_forgets_the_attempt(client: SealClient) -> None:
    """After a reset the shares count from zero under another nonce; an open cluster has none to reset."""
    made = await client.initialise(3, 3)
    await client.submit_share(made.keys[0])
    first = (await client.status()).nonce
    await client.reset()
    assert (await client.status()).progress == 0
    await client.submit_share(made.keys[0])
    assert (await client.status()).nonce not in {first, ""}
    for share in made.keys[1:]:
        await client.submit_share(share)
    with pytest.raises(Conflict):
        await client.reset()


async def test_impossible_numbers_make_no_cluster(client: SealClient) -> None:
    """A refused init leaves the database without a cluster, and a right one then works."""
    with pytest.raises(InvalidRequest):
        await client.initialise(3, 4)
    assert not (await client.status()).initialised
    with pytest.raises(NotInitialised):
        await client.submit_share(b"x" * 33)
    await client.initialise(1, 1)


async def test_a_lost_seal_state_seals_nothing(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """A fresh SealState has the root key back from the KeyHolder, under a new incarnation number."""
    await unsealed(client)
    before = await keyring_bytes(tree, psk, database)
    epoch = (await row_of(database)).seal_epoch
    old = await tree.handles.find(SEAL_STATE)
    assert isinstance(old, SealState)
    await crash(SEAL_STATE)
    new = await successor(tree, SEAL_STATE, old)
    assert not (await client.status()).sealed
    assert (await new.health())["incarnation"] == 2
    assert await keyring_bytes(tree, psk, database) == before
    assert (await row_of(database)).seal_epoch == epoch


async def test_a_full_outage_needs_the_shares_again(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """When nobody has the root key any more the seal says so, and the shares open it again."""
    keys = await unsealed(client, 3, 2)
    before = await keyring_bytes(tree, psk, database)
    epoch = (await row_of(database)).seal_epoch
    await tree.stop()
    again = LocalTree(settings)
    await again.start()
    try:
        second = SealClient(again.handles, psk)
        status = await second.status()
        assert (status.initialised, status.sealed) == (True, True)
        with pytest.raises(Sealed):
            await keyring_bytes(again, psk, database)
        for share in keys[1:]:
            await second.submit_share(share)
        assert await keyring_bytes(again, psk, database) == before
        assert (await row_of(database)).seal_epoch == epoch + 1
    finally:
        await again.stop()


async def test_seal_takes_every_key_away_and_replaces_the_holders(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """After a seal nobody has keys, the processes that had are replaced, and the shares open it again."""
    keys = await unsealed(client, 3, 2)
    row = await row_of(database)
    state = await tree.handles.find(SEAL_STATE)
    holder = await tree.handles.find(actor_name(KEY_HOLDER, NODE))
    notary: Any = await tree.handles.find(AUDIT_NOTARY)
    await until(lambda: _holds(notary))
    assert await client.seal() == []
    assert not await _holds(notary)
    assert (await row_of(database)).sealed
    assert (await client.status()).sealed
    new_state = await successor(tree, SEAL_STATE, state)
    new_holder = await successor(tree, actor_name(KEY_HOLDER, NODE), holder)
    actors: tuple[Any, ...] = (state, holder, new_state, new_holder)
    for actor in actors:
        assert not (await actor.health())["holds"]
    for epoch in (row.seal_epoch, row.seal_epoch + 1):
        with pytest.raises(Sealed):
            await fetch_keyring(tree.handles, psk, cluster=row.cluster_id, node=NODE, epoch=epoch)
    await client.seal()
    for share in keys[:2]:
        await client.submit_share(share)
    assert await keyring_bytes(tree, psk, database)


async def _holds(actor: Any) -> bool:
    return bool((await actor.health())["holds"])


async def test_a_notary_that_does_not_let_go_is_named(
    tree: LocalTree, client: SealClient, settings: NodeSettings
) -> None:
    """A seal waits for the notary, for it holds the key that signs, and says so where that takes too long."""
    await unsealed(client, 3, 2)
    notary: Any = await tree.handles.find(AUDIT_NOTARY)
    await until(lambda: _holds(notary))
    async with stopped_at(settings.database_url, "audit_checkpoints", "true") as there:
        with pytest.raises(Conflict):
            await client.reset()  # What is in the ledger has to be signed.
        await there()
        assert await client.seal() == ["audit-notary"]
    await successor(tree, AUDIT_NOTARY, notary)
    assert not await _holds(notary)


async def test_a_stand_in_that_does_not_let_go_is_named(
    tree: LocalTree, client: SealClient, settings: NodeSettings
) -> None:
    """A key-holder that makes a checkpoint because the notary stands still is waited for."""
    await unsealed(client, 3, 2)
    holder: Any = await tree.handles.find(actor_name(KEY_HOLDER, NODE))
    async with stopped_at(settings.database_url, "audit_checkpoints", "true") as there:
        with pytest.raises(Conflict):
            await client.reset()  # What is in the ledger has to be signed.
        await there(2)
        assert f"{NODE}/key-holder" in await client.seal()
    assert await client.seal() == []
    await successor(tree, actor_name(KEY_HOLDER, NODE), holder)
    assert not (await holder.health())["notary"]


async def test_a_share_is_not_taken_by_a_process_that_is_about_to_end(
    tree: LocalTree, client: SealClient, psk: bytes
) -> None:
    """After a seal the replaced SealState answers no share; shares given at once count in its successor."""
    keys = await unsealed(client, 3, 2)
    state = await tree.handles.find(SEAL_STATE)
    assert isinstance(state, SealState)
    await client.seal()
    box = seal_to(await state.public_key(), keys[2], psk, SHARE_INFO)
    late = asyncio.create_task(state.submit_share(box))
    try:
        for share in keys[:2]:
            await client.submit_share(share)
        assert await tree.handles.find(SEAL_STATE) is not state
        assert not (await client.status()).sealed
        assert not late.done()
    finally:
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)


async def test_a_storage_failure_is_neither_sealed_nor_uninitialised(
    tree: LocalTree,
    client: SealClient,
    psk: bytes,
    database: Database,
    postgres_url: str,
    settings: NodeSettings,
) -> None:
    """Without the database everything is Unavailable, and everything goes on when it is back."""
    made = await client.initialise(3, 2)
    name = settings.database_url.split("?")[0].rsplit("/", 1)[1]
    admin = await asyncpg.connect(postgres_url)
    try:

        async def allow(*, connections: bool) -> None:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {connections}')
            if not connections:
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
                )

        async def back() -> bool:
            try:
                await client.status()
            except Unavailable:
                return False
            return True

        await client.submit_share(made.keys[0])
        await allow(connections=False)
        with pytest.raises(Unavailable):
            await client.status()
        with pytest.raises(Unavailable):
            await client.submit_share(made.keys[1])
        await allow(connections=True)
        await until(back)
        assert (await client.status()).progress == 1
        await client.submit_share(made.keys[1])
        before = await keyring_bytes(tree, psk, database)
        row = await row_of(database)
        await allow(connections=False)
        with pytest.raises(Unavailable):
            await client.seal()
        with pytest.raises(Unavailable):
            await client.status()
        with pytest.raises(Unavailable):
            await fetch_keyring(tree.handles, psk, cluster=row.cluster_id, node=NODE, epoch=row.seal_epoch)
        await allow(connections=True)
        await until(back)
        assert not (await client.status()).sealed
        assert await keyring_bytes(tree, psk, database) == before
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await admin.close()


async def test_a_replaced_incarnation_cannot_write(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """A SealState that was cut off and replaced commits neither a seal nor an unseal, and ends."""
    await unsealed(client)
    zombie = await tree.handles.find(SEAL_STATE)
    assert isinstance(zombie, SealState)
    newer = SealState(
        node="n2",
        database=Database(settings.database_url, size=2),
        handles=tree.handles,
        psk=psk,
        clock=SystemClock(),
    )
    try:
        assert not (await newer.status())["sealed"]
        row = await row_of(database)
        with pytest.raises(Unavailable):
            await zombie.seal()
        assert await row_of(database) == row
        assert not (await zombie.health())["holds"]
        await zombie.hold()
        assert not (await newer.status())["sealed"]
    finally:
        await newer.close()


async def test_what_happens_to_the_seal_is_in_the_ledger(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """Init, every share with its result, unseal, reset and seal are entries that verify under the key."""
    made = await client.initialise(3, 2)
    with pytest.raises(WrongShare):
        await client.submit_share(b"\x01" * 33)
    await client.submit_share(made.keys[0])
    await client.reset()
    for share in made.keys[:2]:
        await client.submit_share(share)
    key = await keyring_bytes(tree, psk, database)
    await client.seal()
    state = await tree.handles.find(SEAL_STATE)
    await successor(tree, SEAL_STATE, state)
    for share in made.keys[:2]:
        await client.submit_share(share)
    async with database.read() as connection:
        rows = await connection.fetch("SELECT * FROM audit_entries ORDER BY at, stream, number")
    told = [(row["operation"], row["outcome"], row["reason"]) for row in rows if row["kind"] == "event"]
    assert told == [
        ("sys.init", "intent", ""),
        ("sys.init", "done", ""),
        ("sys.unseal", "refused", "unknown"),
        ("sys.unseal", "progress", ""),
        ("sys.unseal-reset", "done", ""),
        ("sys.unseal", "progress", ""),
        ("sys.unseal", "intent", ""),
        ("sys.unseal", "done", ""),
        ("sys.seal", "intent", ""),
        ("sys.seal", "done", ""),
        ("sys.unseal", "progress", ""),
        ("sys.unseal", "intent", ""),
        ("sys.unseal", "done", ""),
    ]
    verifier = LedgerVerifier(Keyring.load(key).derived("audit-sign"))
    async with snapshot(database) as connection:
        async for page in row_pages(connection):
            verifier.feed_rows(page)
    assert verifier.finish().first_bad is None
    text = " ".join(str(dict(row)) for row in rows)
    for share in made.keys:
        assert share.hex() not in text
    assert made.root_token not in text
