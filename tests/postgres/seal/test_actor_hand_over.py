"""Key hand-over with real actors in one process: to whom keys go, and that they go in boxes only."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import pickle
import secrets
from pathlib import Path
from typing import Any

import pytest
from seal_steps import NODE, crash, keyring_bytes, row_of, successor, unsealed, until

from actors.handles import LocalHandles, SealClient, fetch_keyring
from actors.handles.keys import INITIALISE_INFO, SHARE_INFO, fetch_root
from actors.key_holder import KeyHolder
from actors.local import LocalTree
from actors.node_witness import NodeWitness
from actors.tree import KEY_HOLDER, SEAL_STATE, actor_name
from secrethub.crypto.sealed_box import Recipient, proof, seal_to
from secrethub.errors import (
    PermissionDenied,
    Sealed,
    Stale,
    Unavailable,
)
from secrethub.node import NodeSettings
from secrethub.storage.database import Database


async def test_a_holder_that_the_seal_missed_gives_nothing(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """The database's word is enough: a holder that was not told to drop its key keeps it to itself."""
    await unsealed(client)
    row = await row_of(database)
    holder = await tree.handles.find(actor_name(KEY_HOLDER, NODE))
    assert isinstance(holder, KeyHolder)
    async with database.write() as connection:
        await connection.execute("UPDATE cluster SET sealed = true, seal_epoch = seal_epoch + 1")
    with pytest.raises(Sealed):
        await fetch_root(
            tree.handles.key_holder(),
            psk,
            cluster=row.cluster_id,
            node=NODE,
            epoch=row.seal_epoch,
            timeout=5,
        )
    with pytest.raises(Sealed):
        await keyring_bytes(tree, psk, database)

    async def wiped() -> bool:
        return not (await holder.health())["holds"]

    await until(wiped)


async def test_an_old_epoch_is_refused(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """Whoever asks for the keyring of another seal epoch than the present one is told to look again."""
    await unsealed(client)
    row = await row_of(database)
    for epoch in (row.seal_epoch - 1, row.seal_epoch + 1):
        with pytest.raises(Stale):
            await fetch_keyring(tree.handles, psk, cluster=row.cluster_id, node=NODE, epoch=epoch)


async def test_without_the_cluster_key_nothing_is_given(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """No keyring, root key, shares, install or unseal for a caller without the pre-shared key."""
    stranger = secrets.token_bytes(32)
    with pytest.raises(PermissionDenied):
        await SealClient(tree.handles, stranger).initialise(1, 1)
    assert not (await client.status()).initialised
    made = await client.initialise(3, 2)
    with pytest.raises(Unavailable):
        await SealClient(tree.handles, stranger).submit_share(made.keys[0])
    assert (await client.status()).progress == 0
    for share in made.keys[:2]:
        await client.submit_share(share)
    row = await row_of(database)
    where = {"cluster": row.cluster_id, "node": NODE, "epoch": row.seal_epoch}
    with pytest.raises(PermissionDenied):
        await fetch_keyring(tree.handles, stranger, **where)  # type: ignore[arg-type]
    for giver in (tree.handles.seal_state(), tree.handles.key_holder()):
        with pytest.raises(PermissionDenied):
            await fetch_root(giver, stranger, **where, timeout=5)  # type: ignore[arg-type]
    recipient = Recipient()
    shown = proof(psk, recipient.public, INITIALISE_INFO)
    with pytest.raises(PermissionDenied):
        await tree.handles.key_holder().call("keyring", recipient.public, shown, NODE, row.seal_epoch)


async def test_a_recorded_unseal_cannot_be_played_again(
    tree: LocalTree, client: SealClient, psk: bytes
) -> None:
    """Boxes that carried an unseal open nothing after a reset or a seal."""
    made = await client.initialise(2, 2)
    public = await tree.handles.seal_state().call("public_key")
    boxes = [seal_to(public, share, psk, SHARE_INFO) for share in made.keys]
    await tree.handles.seal_state().call("submit_share", boxes[0])
    await client.reset()
    with pytest.raises(Stale):
        await tree.handles.seal_state().call("submit_share", boxes[0])
    for share in made.keys:
        await client.submit_share(share)
    await client.seal()
    for box in boxes:
        with pytest.raises(Stale):
            await tree.handles.seal_state().call("submit_share", box)
    assert (await client.status()).progress == 0


async def test_actors_do_not_show_their_keys(tree: LocalTree, client: SealClient) -> None:
    """Neither repr nor health nor a pickle of a key-holding actor gives a key away."""
    await unsealed(client)
    for name in (SEAL_STATE, actor_name(KEY_HOLDER, NODE)):
        actor = await tree.handles.find(name)
        held = actor._held  # type: ignore[attr-defined]
        key = held.reveal()
        for shown in (repr(actor), repr(held), str(await actor.health())):  # type: ignore[attr-defined]
            assert key.hex() not in shown
            assert repr(key) not in shown
        with pytest.raises(TypeError):
            pickle.dumps(held)
    assert dataclasses.asdict(await client.status())["sealed"] is False


class Recorder:
    """Lets every call of an actor through and keeps what it was given and what it answered."""

    def __init__(self, handles: LocalHandles) -> None:
        self.seen: list[bytes] = []
        self.methods: set[str] = set()
        self._run = handles.run
        handles.run = self.run  # type: ignore[method-assign]

    async def run(self, actor: object, method: str, args: tuple[object, ...]) -> Any:
        """Call, and pickle as Ray would."""
        self.methods.add(method)
        self.seen.append(pickle.dumps(args))
        result = await self._run(actor, method, args)
        self.seen.append(pickle.dumps(result))
        return result


async def test_no_key_byte_is_an_argument_or_a_result(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """Through init, unseal, hand-over, recovery and seal no call carries a secret in the open."""
    recorder = Recorder(tree.handles)
    keys = await unsealed(client)
    made = await keyring_bytes(tree, psk, database)
    state = await tree.handles.find(SEAL_STATE)
    root = state._held.reveal()  # type: ignore[attr-defined]
    await crash(SEAL_STATE)
    await successor(tree, SEAL_STATE, state)
    assert not (await client.status()).sealed
    holder = await tree.handles.find(actor_name(KEY_HOLDER, NODE))
    await crash(actor_name(KEY_HOLDER, NODE))
    await successor(tree, actor_name(KEY_HOLDER, NODE), holder)
    assert await keyring_bytes(tree, psk, database) == made
    await client.seal()
    assert recorder.methods >= {"initialise", "submit_share", "keyring", "root", "install_root", "drop"}
    canaries = [psk, root, *keys, *(made[at : at + 32] for at in range(len(made) - 31))]
    told = b"".join(recorder.seen)
    for canary in canaries:
        for form in (canary, canary.hex().encode(), base64.b64encode(canary)):
            assert form not in told
    assert b"hvs." not in told


async def test_another_node_gives_the_root_key_back(
    tree: LocalTree,
    settings: NodeSettings,
    client: SealClient,
    psk: bytes,
    database: Database,
    tmp_path: Path,
) -> None:
    """A node that loses SealState and its KeyHolder at once has the root key back from another node."""
    other = KeyHolder(
        node="n2",
        database=Database(settings.database_url, size=2),
        handles=tree.handles,
        psk=psk,
        witness=NodeWitness(tmp_path),
    )
    await tree.handles.enter(actor_name(KEY_HOLDER, "n2"), other)
    life = asyncio.create_task(other.hold())
    try:
        await unsealed(client)
        assert (await other.health())["holds"]
        before = await keyring_bytes(tree, psk, database)
        state = await tree.handles.find(SEAL_STATE)
        holder = await tree.handles.find(actor_name(KEY_HOLDER, NODE))
        await asyncio.gather(crash(SEAL_STATE), crash(actor_name(KEY_HOLDER, NODE)))
        await successor(tree, SEAL_STATE, state)
        await successor(tree, actor_name(KEY_HOLDER, NODE), holder)
        assert not (await client.status()).sealed
        assert await keyring_bytes(tree, psk, database) == before
        await client.seal()
        assert not (await other.health())["holds"]
    finally:
        life.cancel()
        await other.close()


class Silent:
    """A process that cannot be reached."""

    async def root(self, *_: object) -> bytes:
        """Answer as a handle does when nobody answers it."""
        raise Unavailable("no answer")


async def test_a_holder_that_is_not_reached_is_not_a_lost_key(tree: LocalTree, client: SealClient) -> None:
    """While some holder does not answer the seal is not called sealed, yet the shares open it."""
    keys = await unsealed(client, 3, 2)
    await tree.handles.enter(actor_name(KEY_HOLDER, "n2"), Silent())
    state = await tree.handles.find(SEAL_STATE)
    holder = await tree.handles.find(actor_name(KEY_HOLDER, NODE))
    await asyncio.gather(crash(SEAL_STATE), crash(actor_name(KEY_HOLDER, NODE)))
    await successor(tree, SEAL_STATE, state)
    await successor(tree, actor_name(KEY_HOLDER, NODE), holder)
    with pytest.raises(Unavailable):
        await client.status()
    for share in keys[:2]:
        await client.submit_share(share)
    assert not (await client.status()).sealed


async def test_a_lost_key_holder_fetches_its_key(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """A fresh KeyHolder gets the root key from SealState, and the same keyring leaves it."""
    await unsealed(client)
    before = await keyring_bytes(tree, psk, database)
    name = actor_name(KEY_HOLDER, NODE)
    old = await tree.handles.find(name)
    await crash(name)
    new = await successor(tree, name, old)
    assert await keyring_bytes(tree, psk, database) == before
    assert (await new.health())["holds"]
