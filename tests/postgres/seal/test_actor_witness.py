"""SealState compares the database with what its node has seen before it unseals anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from seal_steps import NODE, row_of, unsealed, until

from actors.handles import LocalHandles, SealClient
from actors.key_holder import KeyHolder
from actors.local import LocalTree
from actors.node_witness import NodeWitness
from actors.seal_state import SealState
from actors.tree import KEY_HOLDER, SEAL_STATE, actor_name
from secrethub.clock import SystemClock
from secrethub.errors import Conflict, PutBack, Unavailable
from secrethub.node import NodeSettings
from secrethub.storage.checkpoints import newest_checkpoint
from secrethub.storage.database import Database
from secrethub.storage.restore import commit_rolled_back
from secrethub.storage.witness_file import load, path_of


async def test_a_database_that_was_put_back_is_not_unsealed(
    tree: LocalTree,
    client: SealClient,
    psk: bytes,
    settings: NodeSettings,
    database: Database,
    tmp_path: Path,
) -> None:
    """With enough shares it stays sealed, without any key-holder's help; they are not taken for consent."""
    shares = await unsealed(client)
    cluster = (await row_of(database)).cluster_id

    async def seen() -> bool:
        newest, kept = await newest_checkpoint(database), load(tmp_path, cluster)
        return newest is not None and kept is not None and kept.signed == newest

    await until(seen)
    await client.seal()
    await until(seen)
    await tree.stop()
    async with database.write() as connection:
        await connection.execute(
            "DELETE FROM audit_checkpoints WHERE sequence = (SELECT max(sequence) FROM audit_checkpoints)"
        )
    handles = LocalHandles(NODE)
    parts = {"node": NODE, "handles": handles, "psk": psk}
    (tmp_path / "other").mkdir()
    # One of a node that has not seen anything.
    holder = KeyHolder(
        **parts, database=Database(settings.database_url, size=2), witness=NodeWitness(tmp_path / "other")
    )
    state = SealState(
        **parts,
        database=Database(settings.database_url, size=2),
        clock=SystemClock(),
        witness=NodeWitness(tmp_path),
    )
    try:
        await handles.enter(actor_name(KEY_HOLDER, NODE), holder)
        await handles.enter(SEAL_STATE, state)
        alone = SealClient(handles, psk)
        kept = path_of(tmp_path, cluster).read_bytes()
        path_of(tmp_path, cluster).write_bytes(b"{")
        for share in shares[:2]:
            await alone.submit_share(share)
        with pytest.raises(Unavailable):
            await alone.submit_share(shares[2])
        path_of(tmp_path, cluster).write_bytes(kept)
        with pytest.raises(PutBack):
            await alone.submit_share(shares[2])
        row = await row_of(database)
        assert (row.sealed, row.rolled_back) == (True, "older")
        assert (await state.health())["holds"] is False
        assert (await alone.status()).progress == 0
        for share in shares[:2]:
            await alone.accept_restore(share)
        assert (await alone.status()).sealed
        await alone.accept_restore(shares[2])
        assert not (await alone.status()).sealed
    finally:
        await state.close()
        await holder.close()


async def test_shares_that_were_given_before_it_was_known(client: SealClient, database: Database) -> None:
    """Whoever gave a share to unseal, or to accept another restore, has not accepted this one."""
    made = await client.initialise(3, 2)
    await client.submit_share(made.keys[0])
    assert (await client.status()).progress == 1
    await commit_rolled_back(database, "older", known=1)
    await client.accept_restore(made.keys[1])
    status = await client.status()
    assert (status.sealed, status.progress) == (True, 1)
    async with database.write() as connection:
        await connection.execute("UPDATE cluster SET rolled_back = ''")
    with pytest.raises(Conflict):
        await client.accept_restore(made.keys[0])
    await commit_rolled_back(database, "older", known=1)
    await client.accept_restore(made.keys[2])
    status = await client.status()
    assert (status.sealed, status.progress) == (True, 1)
    await client.accept_restore(made.keys[0])
    assert not (await client.status()).sealed
