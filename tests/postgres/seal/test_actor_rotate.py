"""New data keys with real actors in one process: what is committed, by whom, and what a crash leaves."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import asyncpg
import pytest
from seal_steps import NODE, crash, keyring_bytes, row_of, stopped_at, successor, unsealed, until

from actors.handles import SealClient
from actors.local import LocalTree
from actors.seal_state import SealState
from actors.tree import KEY_HOLDER, SEAL_STATE, actor_name
from secrethub.audit.event import Origin
from secrethub.clock import SystemClock
from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring
from secrethub.errors import Sealed, Unavailable
from secrethub.node import NodeSettings
from secrethub.seal.wishes import Rekey
from secrethub.storage.database import Database

PLACE = Place(table="t", column="c", row="r", version=1)


async def keyring(tree: LocalTree, psk: bytes, database: Database) -> Keyring:
    """The keyring as a gateway gets it."""
    return Keyring.load(await keyring_bytes(tree, psk, database))


async def events(database: Database) -> list[tuple[str, str]]:
    """What was written down about rotations, in order."""
    async with database.read() as connection:
        rows = await connection.fetch(
            """SELECT outcome, detail FROM audit_entries WHERE operation = 'sys.rotate'
               ORDER BY at, stream, number"""
        )
    return [(row["outcome"], row["detail"]) for row in rows]


async def test_a_key_is_added_once_for_each_who_asks(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """Asked again for the key after the same one, SealState adds no further key; older values open."""
    await unsealed(client)
    first = await keyring(tree, psk, database)
    revision = (await row_of(database)).keyring_revision
    assert [await client.rotate(1), await client.rotate(1), await client.rotate(7)] == [2, 2, 2]
    assert await client.rotate(2, Origin(actor="somebody")) == 3
    row = await row_of(database)
    assert row.keyring_revision == revision + 2
    last = await keyring(tree, psk, database)
    assert last.newest == 3
    assert last.open(first.seal(b"x", PLACE), PLACE) == b"x"
    assert last.derived("token") == first.derived("token")
    assert await events(database) == [
        ("intent", '{"term":2}'),
        ("done", '{"term":2}'),
        ("intent", '{"term":3}'),
        ("done", '{"term":3}'),
    ]


async def test_a_sealed_cluster_gets_no_key(client: SealClient, database: Database) -> None:
    """Before the unseal and after a seal nothing is added."""
    made = await client.initialise(1, 1)
    with pytest.raises(Sealed):
        await client.rotate(1)
    await client.submit_share(made.keys[0])
    await client.seal()
    with pytest.raises((Sealed, Unavailable)):
        await client.rotate(1)
    assert await events(database) == []


async def test_keys_outlive_rekey_and_full_outage(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """Rotations before and after a rekey are all in the keyring that the new shares open after an outage."""
    keys = await unsealed(client, 1, 1)
    first = await keyring(tree, psk, database)
    await client.rotate(1)
    begun = await client.ceremonies.start("rekey", Rekey(shares=1, threshold=1))
    done = await client.ceremonies.give("rekey", keys[0], begun.nonce)
    assert done.progress.complete
    assert await client.rotate(2) == 3
    before = await keyring_bytes(tree, psk, database)
    await tree.stop()
    again = LocalTree(settings)
    await again.start()
    try:
        await SealClient(again.handles, psk).submit_share(base64.b64decode(done.secret[0]))
        assert await keyring_bytes(again, psk, database) == before
        loaded = Keyring.load(before)
        assert (loaded.newest, loaded.open(first.seal(b"x", PLACE), PLACE)) == (3, b"x")
    finally:
        await again.stop()


async def test_a_replaced_incarnation_adds_no_key(
    tree: LocalTree, settings: NodeSettings, client: SealClient, psk: bytes, database: Database
) -> None:
    """A SealState that was cut off and replaced commits no keyring, and ends."""
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
            await zombie.rotate(1)
        assert await row_of(database) == row
        await successor(tree, SEAL_STATE, zombie)
        assert await client.rotate(1) == 2
        assert [outcome for outcome, _ in await events(database)] == ["intent", "refused", "intent", "done"]
    finally:
        await newer.close()


_ROTATES = "NEW.operation = 'sys.rotate' AND NEW.outcome ="


@pytest.mark.parametrize(
    ("table", "when", "told"),
    [
        ("audit_entries", f"{_ROTATES} 'intent'", (["intent", "done"], ["intent", "intent", "done"])),
        ("changes", "NEW.kind = 'keyring'", (["intent"], ["intent", "intent", "done"])),
        ("audit_entries", f"{_ROTATES} 'done'", (["intent"], ["intent", "done"])),
    ],
    ids=["writing down the intent", "committing the keyring", "writing down the outcome"],
)
async def test_a_crash_in_between_adds_one_key(
    tree: LocalTree,
    settings: NodeSettings,
    client: SealClient,
    psk: bytes,
    database: Database,
    table: str,
    when: str,
    told: tuple[list[str], ...],
) -> None:
    """Whatever SealState was doing when it died, its successor answers, with one key and its intent.

    The database may still carry out the statement whose sender died.
    """
    await unsealed(client)
    first = await keyring(tree, psk, database)
    old = await tree.handles.find(SEAL_STATE)
    async with stopped_at(settings.database_url, table, when) as there:
        asked = asyncio.create_task(client.rotate(1))
        await there()
        await crash(SEAL_STATE)
    await successor(tree, SEAL_STATE, old)
    assert await asked == 2
    last = await keyring(tree, psk, database)
    assert (last.newest, last.open(first.seal(b"x", PLACE), PLACE)) == (2, b"x")
    assert [outcome for outcome, _ in await events(database)] in told
    assert not (await client.status()).sealed


async def test_without_the_database_no_key_is_added(
    tree: LocalTree,
    client: SealClient,
    psk: bytes,
    database: Database,
    postgres_url: str,
    settings: NodeSettings,
) -> None:
    """While PostgreSQL is away a rotation is Unavailable; afterwards it is done when asked for again."""
    await unsealed(client)
    name = settings.database_url.split("?")[0].rsplit("/", 1)[1]
    admin = await asyncpg.connect(postgres_url)

    async def allow(*, connections: bool) -> None:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {connections}')
        if not connections:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
            )

    async def rotates() -> bool:
        try:
            return await client.rotate(1) == 2
        except Unavailable:
            return False

    try:
        await allow(connections=False)
        with pytest.raises(Unavailable):
            await client.rotate(1)
        await allow(connections=True)
        await until(rotates)
        assert (await keyring(tree, psk, database)).newest == 2
        assert not (await client.status()).sealed
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await admin.close()


async def test_a_fresh_holder_gives_all_keys(
    tree: LocalTree, client: SealClient, psk: bytes, database: Database
) -> None:
    """A KeyHolder that was replaced after a rotation gives the keyring with the new key."""
    await unsealed(client)
    name = actor_name(KEY_HOLDER, NODE)
    old: Any = await tree.handles.find(name)
    await client.rotate(1)
    await crash(name)
    await successor(tree, name, old)
    assert (await keyring(tree, psk, database)).newest == 2
