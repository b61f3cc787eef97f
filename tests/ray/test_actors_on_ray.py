"""The supervision tree on a real Ray: what dies comes back, and no key travels in the open."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from actors.handles import fetch_keyring
from actors.handles.keys import fetch_root
from actors.handles.protocol import Handle
from actors.handles.remote import RayHandle
from actors.ray_child import Beats
from actors.remote import start_node, start_tree
from actors.supervisor_watch import SupervisorWatch
from actors.tree import NAMESPACE, actor_name
from secrethub.crypto.keyring import Keyring
from secrethub.errors import (
    Conflict,
    PermissionDenied,
    Sealed,
    Unavailable,
    WrongShare,
)
from secrethub.ids import new_uuid
from secrethub.leases.lease import Lease
from secrethub.storage import leases
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow, load_cluster

NODE = "n1"
SEAL_STATE = "seal-state"
HOLDER = actor_name("key-holder", NODE)
MANAGER = actor_name("lease-manager", NODE)
SCHEDULER = actor_name("rotation-scheduler", NODE)
PATIENCE = 60.0
"""Seconds for what takes about one when the machine is idle."""


async def row_of(cluster: Any) -> ClusterRow:
    """The cluster's row."""
    database = Database(cluster.database_url, size=1)
    try:
        row = await load_cluster(database)
    finally:
        await database.close()
    assert row is not None
    return row


async def keyring_of(cluster: Any) -> bytes:
    """What a gateway on this node gets."""
    row = await row_of(cluster)
    keyring = await fetch_keyring(
        cluster.handles(),
        cluster.psk,
        cluster=row.cluster_id,
        node=NODE,
        epoch=row.seal_epoch,
        timeout=PATIENCE,
    )
    return keyring.export()


async def pid_of(handle: Handle) -> int:
    """The process that bears the name now."""
    return int((await handle.call("health", timeout=PATIENCE))["pid"])


async def killed(name: str) -> int:
    """Kill the process of an actor with SIGKILL; return the pid of the one that took its place."""
    old = await pid_of(RayHandle(name))
    os.kill(old, signal.SIGKILL)
    return await replaced(name, old)


async def replaced(name: str, old: int) -> int:
    """Wait until another process than ``old`` bears the name."""
    async with asyncio.timeout(PATIENCE):
        while True:
            new = await pid_of(RayHandle(name))
            if new != old:
                return new


def names() -> set[str]:
    """The named actors of our namespace."""
    import ray

    rows = ray.util.list_named_actors(all_namespaces=True)
    return {row["name"] for row in rows if row["namespace"] == NAMESPACE}


async def test_the_tree_stands(cluster: Any) -> None:
    """Every actor of the tree runs under its name, in a process without core dumps."""
    assert names() == {
        "supervisor",
        "seal-state",
        "distributed-lock",
        "session-directory",
        "audit-notary",
        f"node-supervisor@{NODE}",
        HOLDER,
        MANAGER,
        SCHEDULER,
    }
    for name in names():
        limits = Path(f"/proc/{await pid_of(RayHandle(name))}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]


async def test_starting_twice_at_once_starts_one_tree(cluster: Any) -> None:
    """However often and from wherever the tree is started, the same processes go on."""
    before = {name: await pid_of(RayHandle(name)) for name in names()}
    await asyncio.gather(start_tree(), start_tree(), start_node(NODE), start_node(NODE))
    assert {name: await pid_of(RayHandle(name)) for name in names()} == before


async def test_our_errors_cross_as_themselves(cluster: Any) -> None:
    """An error of ours keeps its type and fields on its way from another process."""
    await cluster.seal().seal()
    with pytest.raises(WrongShare) as refused:
        await cluster.seal().submit_share(b"\x01" * 33)
    assert refused.value.reason == "unknown"
    with pytest.raises(Conflict):
        await cluster.seal().initialise(1, 1)


async def test_a_missing_actor_or_a_defect_is_unavailable(cluster: Any) -> None:
    """A name that nobody bears, and an actor that fails, are Unavailable in the caller's time."""
    with pytest.raises(Unavailable):
        await RayHandle("nobody").call("health", timeout=0.5)
    with pytest.raises(Unavailable):
        await cluster.handles().lock().call("acquire", "name", 7, "never")


async def test_a_killed_seal_state_comes_back_unsealed(cluster: Any) -> None:
    """SIGKILL of SealState: a fresh incarnation has the root key again and the seal did not move."""
    keyring, epoch = await keyring_of(cluster), (await row_of(cluster)).seal_epoch
    incarnation = (await cluster.handles().seal_state().call("health"))["incarnation"]
    await killed(SEAL_STATE)
    assert not (await cluster.seal().status()).sealed
    health = await cluster.handles().seal_state().call("health")
    assert health["incarnation"] == incarnation + 1
    assert health["holds"]
    assert (await row_of(cluster)).seal_epoch == epoch
    assert await keyring_of(cluster) == keyring


async def test_a_killed_key_holder_comes_back_with_its_key(cluster: Any) -> None:
    """SIGKILL of the KeyHolder: its successor fetches the root key and gives the same keyring."""
    keyring = await keyring_of(cluster)
    await killed(HOLDER)
    assert await keyring_of(cluster) == keyring


async def test_a_killed_lease_manager_comes_back_and_goes_on(cluster: Any) -> None:
    """SIGKILL of the LeaseManager: its successor opens what is due next, although nobody told it anything."""
    for number in range(2):
        await untried_lease(cluster, f"gone/{number}")
        await until_true(lambda number=number: tried(cluster, f"gone/{number}"))
        if not number:
            await killed(MANAGER)


async def test_a_lease_manager_that_stands_still_is_replaced(cluster: Any) -> None:
    """SIGSTOP of the LeaseManager, which ends no call: it is killed, and its successor goes on."""
    old = await pid_of(RayHandle(MANAGER))
    supervisor = await pid_of(RayHandle(f"node-supervisor@{NODE}"))
    os.kill(old, signal.SIGSTOP)
    await untried_lease(cluster, "gone/still")
    await until_true(lambda: tried(cluster, "gone/still"))
    assert await replaced(MANAGER, old) != old
    assert not Path(f"/proc/{old}").exists()
    assert await pid_of(RayHandle(f"node-supervisor@{NODE}")) == supervisor


async def test_a_supervisor_that_stands_still_is_replaced(cluster: Any) -> None:
    """SIGSTOP of either supervisor: its node kills it, and the next one has children that work."""
    watch = asyncio.create_task(SupervisorWatch(NODE, Beats(pause=0.2, deadline=2.0)).run())
    try:
        for name, child in ((f"node-supervisor@{NODE}", HOLDER), ("supervisor", SEAL_STATE)):
            old, grandchild = await pid_of(RayHandle(name)), await pid_of(RayHandle(child))
            # The watch has heard of this process.
            await asyncio.sleep(1)
            os.kill(old, signal.SIGSTOP)
            assert await replaced(name, old) != old
            assert await replaced(child, grandchild) != grandchild
            assert not Path(f"/proc/{old}").exists()
    finally:
        watch.cancel()
    await keyring_of(cluster)


async def test_a_killed_rotation_scheduler_comes_back_with_its_keys(cluster: Any) -> None:
    """SIGKILL of the RotationScheduler: its successor gets the keyring again."""
    await until_true(lambda: holding(cluster, "rotation-scheduler"))
    await killed(SCHEDULER)
    # Only now does the one that was killed say no more that it has keys.
    await ask(cluster, "DELETE FROM key_users")
    await until_true(lambda: holding(cluster, "rotation-scheduler"))


async def test_a_seal_takes_the_keys_of_both(cluster: Any) -> None:
    """Once sealed neither LeaseManager nor RotationScheduler has keys; unsealed again they have."""
    # Processes that were killed cannot take back that they had keys; those that live say so again.
    await ask(cluster, "DELETE FROM key_users")
    for name in ("lease-manager", "rotation-scheduler"):
        await until_true(lambda name=name: holding(cluster, name))
    await cluster.seal().seal()
    await until_true(lambda: nobody_holds(cluster))
    for share in cluster.shares[:2]:
        await cluster.seal().submit_share(share)
    for name in ("lease-manager", "rotation-scheduler"):
        await until_true(lambda name=name: holding(cluster, name))


async def ask(cluster: Any, statement: str, *values: Any) -> list[Any]:
    """Run a statement on the database."""
    connection = await asyncpg.connect(cluster.database_url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)


async def holding(cluster: Any, name: str) -> bool:
    """Tell whether the actor says that it has keys."""
    return bool(await ask(cluster, "SELECT 1 FROM key_users WHERE shown = $1", f"{NODE}/{name}"))


async def nobody_holds(cluster: Any) -> bool:
    """Tell whether no process says that it has keys."""
    return not await ask(cluster, "SELECT 1 FROM key_users")


async def untried_lease(cluster: Any, identifier: str) -> None:
    """Leave an intent that is due, of a mount that is gone."""
    keyring = Keyring.load(await keyring_of(cluster))
    lease = Lease(
        id=identifier,
        revision=1,
        state="intent",
        mount=new_uuid(),
        role="app",
        target="one",
        owner="nobody",
        owner_name="nobody",
        lineage=("nobody",),
        issued_at=1,
        expires_at=2,
        max_expires_at=3,
        renewable=False,
        sealed=leases.sealed_data(keyring, identifier, "intent", {}),
    )
    values = leases.values(keyring, lease)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    await ask(cluster, f"INSERT INTO leases ({leases.COLUMNS}, due_at) VALUES ({places}, now())", *values)


async def tried(cluster: Any, identifier: str) -> bool:
    """Tell whether somebody has opened a lease and found that its mount is gone."""
    rows = await ask(cluster, "SELECT error FROM leases WHERE id = $1", identifier)
    return [row["error"] for row in rows] == ["the mount that it was made by is gone"]


async def test_a_killed_supervisor_comes_back_with_its_children(cluster: Any) -> None:
    """SIGKILL of the Supervisor: Ray restarts it, its children are fresh, the cluster is unsealed."""
    children = ("seal-state", "distributed-lock", "session-directory")
    before = {name: await pid_of(RayHandle(name)) for name in children}
    holder = await pid_of(RayHandle(HOLDER))
    await killed("supervisor")
    for name in children:
        await replaced(name, before[name])
    assert not (await cluster.seal().status()).sealed
    assert await pid_of(RayHandle(HOLDER)) == holder
    assert await cluster.handles().lock().call("acquire", "x", "me", 1.0) is not None


async def test_a_killed_node_supervisor_takes_nothing_but_its_node_along(cluster: Any) -> None:
    """SIGKILL of the NodeSupervisor: the KeyHolder is replaced and gets its key from SealState."""
    keyring, state = await keyring_of(cluster), await pid_of(RayHandle(SEAL_STATE))
    old = await pid_of(RayHandle(HOLDER))
    await killed(f"node-supervisor@{NODE}")
    await replaced(HOLDER, old)
    assert await keyring_of(cluster) == keyring
    assert await pid_of(RayHandle(SEAL_STATE)) == state


async def test_checkpoints_go_on_when_the_notary_is_killed(cluster: Any) -> None:
    """SIGKILL of the AuditNotary: what is written afterwards gets checkpoints, without a gap in between."""
    connection = await asyncpg.connect(cluster.database_url)
    try:
        newest = "SELECT sequence, epoch FROM audit_checkpoints ORDER BY sequence DESC LIMIT 1"
        async with asyncio.timeout(PATIENCE):
            while (before := await connection.fetchrow(newest)) is None:  # noqa: ASYNC110 - it cannot signal
                await asyncio.sleep(0.05)
        await killed("audit-notary")
        await cluster.seal().ceremonies.cancel("rekey")
        behind = """SELECT count(*) FROM audit_streams s LEFT JOIN notarised_streams n USING (stream)
                    WHERE n.number IS DISTINCT FROM s.number"""
        async with asyncio.timeout(PATIENCE):
            while await connection.fetchval(behind):  # noqa: ASYNC110 - it cannot signal
                await asyncio.sleep(0.05)
        rows = await connection.fetch("SELECT sequence, epoch FROM audit_checkpoints ORDER BY sequence")
    finally:
        await connection.close()
    assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["sequence"] > before["sequence"]
    # Whoever made it, the one that was killed could make none any more.
    assert rows[-1]["epoch"] > before["epoch"]


async def test_a_seal_replaces_every_process_that_held_the_key(cluster: Any) -> None:
    """After a seal the key-holding processes are fresh ones, nobody has keys, and the shares open it."""
    before = {name: await pid_of(RayHandle(name)) for name in (SEAL_STATE, HOLDER)}
    await cluster.seal().seal()
    with pytest.raises(Sealed):
        await keyring_of(cluster)
    for name, pid in before.items():
        await replaced(name, pid)
    assert (await cluster.seal().status()).sealed
    for share in cluster.shares[1:]:
        await cluster.seal().submit_share(share)
    assert await keyring_of(cluster)


async def test_without_the_cluster_key_nothing_is_given(cluster: Any) -> None:
    """A caller inside Ray without the pre-shared key gets no keyring and no root key."""
    row = await row_of(cluster)
    where: dict[str, Any] = {"cluster": row.cluster_id, "node": NODE, "epoch": row.seal_epoch}
    stranger = bytes(32)
    with pytest.raises(PermissionDenied):
        await fetch_keyring(cluster.handles(), stranger, **where)
    for giver in (cluster.handles().seal_state(), cluster.handles().key_holder()):
        with pytest.raises(PermissionDenied):
            await fetch_root(giver, stranger, **where, timeout=PATIENCE)


def _files(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.read_bytes()


async def test_no_secret_is_left_in_ray(cluster: Any) -> None:
    """Neither Ray's session folder nor any process's arguments hold a share, a key or the root token."""
    row = await row_of(cluster)
    root = await fetch_root(
        cluster.handles().seal_state(),
        cluster.psk,
        cluster=row.cluster_id,
        node=NODE,
        epoch=row.seal_epoch,
        timeout=PATIENCE,
    )
    canaries = [cluster.root_token.encode(), cluster.database_url.encode()]
    for key in (root, cluster.psk, *cluster.shares):
        canaries += [key, key.hex().encode(), base64.b64encode(key)]
    processes = [await pid_of(RayHandle(name)) for name in names()]
    places = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes]
    places += _files(cluster.session)
    assert len(places) > len(processes)
    for place in places:
        for canary in canaries:
            assert canary not in place


async def test_locks_and_directory_answer(cluster: Any) -> None:
    """The other singletons work from another process."""
    handles = cluster.handles()
    lock = await handles.lock().call("acquire", "rotate", "me", 60.0)
    assert await handles.lock().call("acquire", "rotate", "you", 60.0) is None
    assert await handles.lock().call("release", lock)
    assert await handles.session_directory().call("heartbeat", "nobody") is False
    connection = await asyncpg.connect(cluster.database_url)
    try:
        assert await connection.fetchval("SELECT fencing FROM locks WHERE name = 'rotate'") == lock.fencing
    finally:
        await connection.close()
