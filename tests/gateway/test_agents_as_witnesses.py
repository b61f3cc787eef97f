"""Agents keep what they were shown of the ledger, and a database that was put back does not get past them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.wiring import Pulses
from agent.backoff import Backoff
from agent.connection import Connection
from agent.conversation import converse
from agent.identity import Identity, certified
from agent.state import open_state
from agent.witness import LedgerWitness
from secrethub.audit.checkpoint import Signed, sign
from secrethub.audit.witness import pack, read_witness
from secrethub.clock import SystemClock
from secrethub.errors import PermissionDenied, Unavailable
from secrethub.pki import keys
from secrethub.pki.csr import make_request
from secrethub.storage.checkpoints import newest_checkpoint
from tests.gateway.behind import sql, until
from tests.gateway.conftest import Node, native, node_settings, running
from tests.gateway.kv import ok
from tests.gateway.test_rolled_back import (
    Backup,
    accept,
    backup,
    healthy,
    pulses,
    refused,
    rolled_back,
    root_of,
    written,
)

__all__ = ["backup", "pulses"]  # the fixtures


async def enrolled(node: Node, name: str = "web-1", *policies: str) -> Identity:
    """Enrol a host, whose agent has these policies, too."""
    policy = native("agents/enroll", "agents/enroll/begin", capabilities=("update",))
    await ok(node, "PUT", "sys/policies/acl/host", {"policy": policy})
    await ok(node, "POST", "auth/approle/role/host", {"token_policies": ["host", *policies]})
    login = {
        "role_id": (await ok(node, "GET", "auth/approle/role/host/role-id"))["role_id"],
        "secret_id": (await ok(node, "POST", "auth/approle/role/host/secret-id"))["secret_id"],
    }
    answer = (await node.call("POST", "auth/approle/login", "", json=login)).json()
    token = answer["auth"]["client_token"]
    key = keys.generate("ecdsa-p256")
    begun = (await node.call("POST", "agents/enroll/begin", token, json={})).json()["data"]
    body = {"csr": make_request(key, begun["nonce"]), "name": name}
    made = (await node.call("POST", "agents/enroll", token, json=body)).json()["data"]
    return certified(key, made["certificate"], made["ca_chain"], made["root_sha256"], datetime.now(UTC))


class Quiet:
    """Whom an agent's connection tells what Core says."""

    def opened(self) -> None: ...

    def changed(self, path: str) -> None: ...

    def changed_all(self) -> None: ...

    def certificate_due(self) -> None: ...

    def moved(self, urls: Sequence[str]) -> None: ...


@contextlib.asynccontextmanager
async def connected(node: Node, identity: Identity, folder: Path) -> AsyncIterator[None]:
    """Hold an agent's connection, and keep what it is shown."""
    with open_state(folder) as state:
        witness = LedgerWitness(state, identity.cluster)
        urls = node.settings.agent_urls
        connection = Connection(identity, "web-1", urls, SystemClock(), Backoff(), (), witness)
        tasks = [asyncio.create_task(work) for work in (connection.run(Quiet()), witness.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def kept(folder: Path) -> Signed | None:
    """Return what an agent's file has."""
    for path in folder.glob("witness-*.json"):
        return read_witness(path.read_bytes()).signed
    return None


async def known_to(node: Node) -> int:
    """Return the number of the newest checkpoint that the node's process knows of, 0 for none."""
    text = (await node.call("GET", "sys/metrics")).text
    told = re.search(r"\nsecrethub_audit_checkpoint{.*} (\d+)", text)
    return int(told[1]) if told else 0


async def shown_the_newest(node: Node, identity: Identity, folder: Path) -> None:
    """Hold an agent's connection until it keeps the newest checkpoint that there is now, or one after it."""
    newest = await newest_checkpoint(node.process.core.database)
    assert newest is not None

    async def seen() -> bool:
        found = kept(folder)
        return found is not None and found.checkpoint.sequence >= newest.checkpoint.sequence

    async def known() -> bool:
        return await known_to(node) >= newest.checkpoint.sequence

    await until(known)
    async with connected(node, identity, folder):
        await until(seen)


async def reachable(node: Node, identity: Identity) -> bool:
    """Tell whether agents can connect."""
    with contextlib.suppress(Unavailable):
        async with converse(identity, node.settings.agent_urls[0], "web-1"):
            return True
    return False


async def lied_to(node: Node, identity: Identity, lie: bytes) -> None:
    """Have an agent say that it has seen something."""
    async with converse(identity, node.settings.agent_urls[0], "web-1", lie):
        # The gateway compares what agents say four times a second.
        await asyncio.sleep(0.6)


async def test_a_database_that_was_put_back(
    database_url: str, tmp_path: Path, backup: Backup, pulses: Pulses
) -> None:
    """An agent that has seen more seals it where no node has, lies do not, and once accepted all go on."""
    settings, folder = node_settings(tmp_path, database_url), tmp_path / "agent"
    async with running(settings, pulses=pulses) as node:
        await node.initialise()
        await node.unseal()
        identity = await enrolled(node)
        await written(node, "old")
        await backup.make()
        await until(lambda: healthy(node))
        await written(node, "new")
        await shown_the_newest(node, identity, folder)
        shares, root = node.shares, node.root
    for path in Path(settings.state_dir).glob("witness-*"):
        path.unlink()
    await backup.restore()
    signed = kept(folder)
    assert signed is not None
    forged = msgspec.structs.replace(signed.checkpoint, sequence=10**9)
    async with running(settings, pulses=pulses) as node:
        node.shares, node.root = shares, root
        await node.unseal()
        await until(lambda: healthy(node))
        await until(lambda: reachable(node, identity))
        other = Ed25519PrivateKey.generate()
        for lie in (b"\xc1", pack(sign(other, forged)), pack(Signed(forged, signed.signature))):
            await lied_to(node, identity, lie)
            with pytest.raises(PermissionDenied):
                await node.tree.handles.key_holder().call("testify", lie)
        assert not await rolled_back(node)
        async with connected(node, identity, folder):
            await until(lambda: rolled_back(node))
            await until(lambda: refused(node))
            # Whoever edits the row gets no further, also with shares: the node has seen it, too, by now.
            await sql(database_url, "UPDATE cluster SET rolled_back = ''")
            for share in node.shares[:3]:
                await node.call("PUT", "sys/unseal", "", json={"key": share})
            await until(lambda: rolled_back(node))
        await accept(node, node.shares[:3])
        node.root = await root_of(node)
        assert (await node.call("GET", "secrets/a")).json()["data"]["data"] == {"k": "old"}

        async def begun() -> bool:
            found = await sql(
                database_url, "SELECT sequence FROM audit_checkpoints WHERE timeline > 1 ORDER BY 1 LIMIT 1"
            )
            return bool(found) and await known_to(node) >= found[0]["sequence"]

        async def in_the_new_timeline() -> bool:
            found = kept(folder)
            return found is not None and found.checkpoint.timeline > 1

        await until(begun)
        async with connected(node, identity, folder):
            await until(in_the_new_timeline)
        assert not await rolled_back(node)
        # What the agent had seen before that is nothing to stop anybody with any more.
        await lied_to(node, identity, pack(signed))
        assert await healthy(node)
