"""The agents' door on a real database, over real TLS: who gets in, what they are told, how they leave."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from authority_core import Running, running
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from actors.handles import LocalHandles
from actors.session_directory import SessionDirectory
from actors.sessions.rules import Limits
from actors.sessions.session import AgentSession
from actors.tree import SESSION_DIRECTORY
from secrethub.clock import SystemClock
from secrethub.crypto.keyring import Keyring
from secrethub.node import Listener
from secrethub.operations.transport_ca import issue_gateway_certificate, load_trust
from secrethub.pki import keys
from secrethub.storage.seal_store import set_sealed
from secrethub.wire import messages as wire
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.codec import TO_CORE_LIMIT
from secrethub.wire.session import Session
from serve.agent_gateway import AgentGateway
from serve.agent_gateway.connection import AgentConnection
from tests.gateway.conftest import SHARING

M = TypeVar("M")
NO_TLS = (ssl.SSLError, ConnectionError, EOFError, ConnectionClosed, InvalidHandshake)
"""How a client learns that it was cut off: TLS 1.3 tells it only after its own handshake is done."""
POLICY = {
    "version": "1",
    "statements": [{"effect": "allow", "paths": ["secrets/web/**"], "capabilities": ["read", "list"]}],
}
ENROLLING = {
    "version": "1",
    "statements": [
        {"effect": "allow", "paths": ["agents/enroll", "agents/enroll/begin"], "capabilities": ["update"]}
    ],
}
HERE = "wss://here.example.com:4665"
ELSEWHERE = "wss://other.example.com:4665"


@dataclass(frozen=True, kw_only=True)
class Host:
    """An enrolled host: its certificate and key, in files."""

    agent_id: str
    serial: str
    folder: Path

    def tls(self) -> ssl.SSLContext:
        """Return a client's context with this host's certificate."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
        return context


class Agent:
    """A connected agent: the websockets client and the agent's side of the protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.protocol = Session("agent")

    async def say(self, message: wire.Message) -> None:
        """Send a message."""
        await self.socket.send(self.protocol.send(message), text=True)

    async def hear(self, kind: type[M]) -> M:
        """Return the next message, which must be of this kind."""
        message = self.protocol.receive(await self.socket.recv(decode=False))
        assert isinstance(message, kind), message
        return message

    async def closed(self) -> int:
        """Wait for the end and return the close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.socket.recv()
        assert self.socket.close_code is not None
        return self.socket.close_code

    async def read(self, path: str, version: int | None = None) -> wire.Result | wire.Error:
        """Read a secret."""
        await self.say(wire.Read(id=7, path=path, version=version))
        return await self.hear(wire.Result | wire.Error)  # type: ignore[arg-type]

    async def watch(self, *paths: str) -> wire.Watching:
        """Watch paths."""
        await self.say(wire.Watch(id=8, paths=paths))
        return await self.hear(wire.Watching)


class House:
    """A cluster in this process with its agents' door open."""

    def __init__(
        self, hub: Running, gateway: AgentGateway, directory: SessionDirectory, folder: Path
    ) -> None:
        self.hub, self.gateway, self.directory, self.folder = hub, gateway, directory, folder
        self._turns = itertools.count(1)

    async def enrol(self, name: str = "", role: str = "web") -> Host:
        """Enrol a host, of a new name by default, under a role that has the policy of its name."""
        name = name or f"web-{next(self._turns)}"
        token = await self.hub.login(*await self.hub.role(role, role, "enrolling"))
        nonce = (await self.hub.data("write", "agents/enroll/begin", {}, token=token))["nonce"]
        key = keys.generate("ecdsa-p256")
        body = {"csr": request(key, nonce), "name": name}
        enrolled = await self.hub.data("write", "agents/enroll", body, token=token)
        folder = self.folder / name
        folder.mkdir()
        (folder / "ca.pem").write_text(enrolled["ca_chain"][-1])
        (folder / "cert.pem").write_text(enrolled["certificate"] + enrolled["ca_chain"][0])
        (folder / "key.pem").write_bytes(keys.private_pem(key))
        certificate = x509.load_pem_x509_certificate(enrolled["certificate"].encode())
        serial = format(certificate.serial_number, "x")
        return Host(agent_id=enrolled["agent_id"], serial=serial, folder=folder)

    @asynccontextmanager
    async def socket(self, tls: ssl.SSLContext | None, **how: Any) -> AsyncIterator[ClientConnection]:
        """Connect to the door."""
        scheme = "wss" if tls is not None else "ws"
        how.setdefault("subprotocols", [wire.SUBPROTOCOL])
        url = f"{scheme}://127.0.0.1:{self.gateway.port}"
        async with connect(url, ssl=tls, compression=None, proxy=None, close_timeout=1, **how) as socket:
            yield socket

    @asynccontextmanager
    async def agent(self, host: Host) -> AsyncIterator[Agent]:
        """Connect and greet."""
        async with self.socket(host.tls()) as socket:
            agent = Agent(socket)
            await agent.say(wire.Hello(version="0", name="n"))
            welcome = await agent.hear(wire.Welcome)
            assert welcome.agent_id == host.agent_id
            assert welcome.agent_urls == (HERE, ELSEWHERE)
            yield agent

    async def put(self, path: str, **data: Any) -> int:
        """Write a secret and return its version."""
        return int((await self.hub.data("write", f"secret/data/{path}", {"data": data}))["version"])

    async def nobody(self) -> None:
        """Wait until no agent is connected, nor known to be."""

        async def none() -> bool:
            return (await self.gateway.health())["agents"] == 0 and await self.directory.count() == 0

        await until(none)

    async def ledger(self, operation: str, host: Host | None = None) -> list[dict[str, Any]]:
        """Return the entries of an operation, of all agents or of one."""
        connection = await asyncpg.connect(self.hub.url)
        try:
            rows = await connection.fetch(
                "SELECT * FROM audit_entries WHERE operation = $1 ORDER BY at", operation
            )
        finally:
            await connection.close()
        actor = "" if host is None else f"agent:{host.agent_id}"
        return [dict(row) for row in rows if row["actor"].startswith(actor)]

    def value(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 before there is one."""
        return self.hub.core.metrics.registry.get_sample_value(f"secrethub_{name}", labels) or 0.0

    def refusals(self, reason: str) -> float:
        """Return how many connections were refused for ``reason``."""
        return self.value("agent_refusals_total", reason=reason)


def request(key: Any, challenge: str = "") -> str:
    """Return a signing request in PEM, with a challenge password if given."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if challenge:
        password = x509.oid.AttributeOID.CHALLENGE_PASSWORD
        builder = builder.add_attribute(password, challenge.encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(keys.serialization.Encoding.PEM).decode()


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds that nothing announces; the test's own limit bounds it."""
    while True:
        found = holds()
        if found is True or (isinstance(found, Awaitable) and await found):
            return
        await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(url: str, folder: Path, gateway: AgentGateway) -> AsyncIterator[House]:
    """Run a cluster and open the door."""
    handles = LocalHandles("n1")
    directory = SessionDirectory(SystemClock())
    await handles.enter(SESSION_DIRECTORY, directory)
    async with running(url, folder) as hub:
        hub.core.settings = msgspec.structs.replace(
            hub.core.settings,
            agents=Listener(host="127.0.0.1", port=0),
            agent_urls=(HERE, ELSEWHERE),
        )
        await hub.ask("write", "sys/policies/acl/web", {"policy": POLICY})
        await hub.ask("write", "sys/policies/acl/enrolling", {"policy": ENROLLING})
        await gateway.start(hub.core, handles)
        try:
            await gateway.opened()
            yield House(hub, gateway, directory, folder)
        finally:
            await gateway.stop(within=0.05)


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A cluster with its agents' door open."""
    async with opened(database_url, tmp_path, AgentGateway()) as house:
        yield house
        assert house.gateway.healthy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_house(
    shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """A house for tests that change nothing which others of their module see."""
    folder = tmp_path_factory.mktemp("shared")
    async with opened(shared_database_url, folder, AgentGateway()) as house:
        yield house
        assert house.gateway.healthy


@SHARING
async def test_an_agent_reads_what_its_policy_allows(shared_house: House) -> None:
    """Over mutual TLS a permitted secret is read, in any version, and the reads are in the ledger."""
    await shared_house.put("web/versions", password="one")
    await shared_house.put("web/versions", password="two")
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        newest = await agent.read("secrets/web/versions")
        assert isinstance(newest, wire.Result)
        assert (newest.data, newest.version) == ({"password": "two"}, 2)
        older = await agent.read("secrets/web/versions", version=1)
        assert isinstance(older, wire.Result)
        assert older.data == {"password": "one"}
    entries = [e for e in await shared_house.ledger("kv.read", host) if e["door"] == "agent"]
    assert [(e["outcome"], e["path"], e["client"]) for e in entries] == [
        ("done", "secret/data/web/versions", "127.0.0.1")
    ] * 2
    assert entries[0]["actor"].startswith(f"agent:{host.agent_id}:")
    connects = await shared_house.ledger("agents.connect", host)
    assert [(e["outcome"], e["path"]) for e in connects] == [("done", f"agents/{host.agent_id}")]


@SHARING
async def test_what_is_not_allowed_is_refused_and_recorded(shared_house: House) -> None:
    """A path of another agent is denied without a reason to the agent and with one in the ledger."""
    await shared_house.put("db/root", password="canary")
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        assert await agent.read("secrets/db/root") == wire.Error(
            id=7, code="permission_denied", message="permission denied"
        )
        missing = await agent.read("secrets/web/none")
        assert isinstance(missing, wire.Error)
        assert missing.code == "not_found"
        for path in ("secrets//a", "secrets/../sys/mounts", "secrets/a\u0000"):
            refused = await agent.read(path)
            assert isinstance(refused, wire.Error)
            assert refused.code == "invalid_path"
        for path in ("sys/mounts", "auth/token/lookup-self", "nowhere"):
            refused = await agent.read(path)
            assert isinstance(refused, wire.Error)
            assert refused.code == "invalid_path"
        watching = await agent.watch("secrets/web/db", "secrets/db/root", "sys/mounts", "secrets/web/db/")
        assert watching.paths == ("secrets/web/db",)
        assert {r.path: r.code for r in watching.refused} == {
            "secrets/db/root": "permission_denied",
            "sys/mounts": "invalid_path",
            "secrets/web/db/": "invalid_path",
        }
    reads = [e for e in await shared_house.ledger("kv.read", host) if e["outcome"] == "denied"]
    assert [e["path"] for e in reads] == ["secret/data/db/root"]
    assert reads[0]["reason"]
    others = [e for e in await shared_house.ledger("kv.read", host) if e["outcome"] == "refused"]
    assert [e["path"] for e in others] == ["sys/mounts", "auth/token/lookup-self", "nowhere"]
    watches = await shared_house.ledger("kv.watch", host)
    assert {(e["path"], e["outcome"]) for e in watches} == {
        ("secret/data/web/db", "done"),
        ("secret/data/db/root", "denied"),
    }


@SHARING
async def test_a_change_is_pushed_without_its_value(shared_house: House) -> None:
    """A watched secret's new version is announced, its deletion too; the value has to be read."""
    await shared_house.put("web/pushed", password="one")
    host = await shared_house.enrol()
    confirmed = shared_house.value("agent_confirm_seconds_count")
    pushed = shared_house.value("agent_pushes_total", kind="changed")
    async with shared_house.agent(host) as agent:
        await agent.watch("secrets/web/pushed", "secrets/web/new")
        assert await shared_house.put("web/pushed", password="canary") == 2
        frame = await agent.socket.recv(decode=False)
        assert b"canary" not in frame
        changed = agent.protocol.receive(frame)
        assert isinstance(changed, wire.Changed)
        assert (changed.path, changed.version) == ("secrets/web/pushed", 2)
        result = await agent.read("secrets/web/pushed")
        assert isinstance(result, wire.Result)
        assert result.data == {"password": "canary"}
        await agent.say(wire.Confirm(path="secrets/web/pushed", version=2))
        await shared_house.put("web/new", first="x")
        assert (await agent.hear(wire.Changed)).path == "secrets/web/new"
        await shared_house.hub.ask("delete", "secret/data/web/new")
        assert (await agent.hear(wire.Changed)).path == "secrets/web/new"
        gone = await agent.read("secrets/web/new")
        assert isinstance(gone, wire.Error)
        assert gone.code == "not_found"
    assert shared_house.value("agent_confirm_seconds_count") == confirmed + 1
    assert shared_house.value("agent_pushes_total", kind="changed") == pushed + 3


@SHARING
async def test_a_connection_without_a_certificate_is_refused(shared_house: House) -> None:
    """TLS without a client certificate fails, and so does no TLS at all; both are counted."""
    host = await shared_house.enrol()
    without = ssl.create_default_context(cafile=host.folder / "ca.pem")
    certless, plain = shared_house.refusals("no_certificate"), shared_house.refusals("no_tls")
    with pytest.raises(NO_TLS):
        async with shared_house.socket(without):
            pass
    await until(lambda: shared_house.refusals("no_certificate") == certless + 1)
    with pytest.raises(NO_TLS):
        async with shared_house.socket(None):
            pass
    await until(lambda: shared_house.refusals("no_tls") == plain + 1)


@SHARING
async def test_only_the_transport_authority_makes_agents(shared_house: House) -> None:
    """A certificate of another authority, the PKI mount's included, does not get in."""
    host = await shared_house.enrol()
    issued = await shared_house.hub.data(
        "write", "pki/issue/default", {"common_name": "agent.example.com", "ttl": "1h"}
    )
    (host.folder / "cert.pem").write_text(issued["certificate"] + "\n" + "\n".join(issued["ca_chain"]))
    (host.folder / "key.pem").write_text(issued["private_key"])
    before = shared_house.refusals("bad_certificate")
    with pytest.raises(NO_TLS):
        async with shared_house.socket(host.tls()):
            pass
    await until(lambda: shared_house.refusals("bad_certificate") == before + 1)


@SHARING
async def test_a_gateway_is_not_an_agent(shared_house: House) -> None:
    """The transport authority's own gateway certificate does not open a session."""
    host = await shared_house.enrol()
    chain, key = await issue_gateway_certificate(shared_house.hub.core, "n1", ("localhost",), ("127.0.0.1",))
    (host.folder / "cert.pem").write_bytes(chain)
    (host.folder / "key.pem").write_bytes(key)
    await shared_house.nobody()
    before = shared_house.refusals("bad_certificate") + shared_house.refusals("not_an_agent")
    with pytest.raises(NO_TLS):
        async with shared_house.socket(host.tls()):
            pass
    await until(
        lambda: shared_house.refusals("bad_certificate") + shared_house.refusals("not_an_agent") == before + 1
    )
    assert (await shared_house.gateway.health())["agents"] == 0


@SHARING
async def test_revocation_ends_the_live_connection_and_all_others(shared_house: House) -> None:
    """A revoked agent is cut off at once, does not come back, and both are on record."""
    host = await shared_house.enrol()
    before = shared_house.refusals("permission_denied")
    async with shared_house.agent(host) as agent:
        await shared_house.hub.ask("write", f"agents/{host.agent_id}/revoke", {})
        assert await agent.closed() == CloseCode.REVOKED
    async with shared_house.socket(host.tls()) as socket:
        again = Agent(socket)
        await again.say(wire.Hello(version="0", name="n"))
        assert await again.closed() == CloseCode.REVOKED
    refused = [e for e in await shared_house.ledger("agents.connect", host) if e["outcome"] == "denied"]
    assert [e["actor"] for e in refused] == [f"agent:{host.agent_id}"]
    assert "revoked" in refused[0]["reason"]
    assert shared_house.refusals("permission_denied") == before + 1


@SHARING
async def test_an_agent_whose_role_is_gone_may_do_nothing_but_is_not_revoked(shared_house: House) -> None:
    """When its role is deleted an agent is refused everything, and a role made anew is another one."""
    await shared_house.put("web/gone", password="one")
    await shared_house.hub.ask("write", "sys/policies/acl/gone", {"policy": POLICY})
    host = await shared_house.enrol(role="gone")
    async with shared_house.agent(host) as agent:
        await agent.watch("secrets/web/gone")
        await shared_house.hub.ask("delete", "auth/approle/role/gone")
        await agent.hear(wire.PolicyChanged)
        refused = await agent.read("secrets/web/gone")
        assert isinstance(refused, wire.Error)
        assert refused.code == "permission_denied"
        await shared_house.put("web/gone", password="two")
        await shared_house.hub.role("gone", "gone")
        await agent.hear(wire.PolicyChanged)
        assert isinstance(await agent.read("secrets/web/gone"), wire.Error)


@SHARING
async def test_a_certificate_that_is_not_the_agents_any_more_is_refused(shared_house: House) -> None:
    """After enrolling anew, the earlier certificate of the same agent opens nothing."""
    host = await shared_house.enrol("twice")
    await shared_house.hub.ask("write", f"agents/{host.agent_id}/approve", {})
    kept = Host(
        agent_id=host.agent_id, serial=host.serial, folder=host.folder.rename(host.folder.with_suffix(".old"))
    )
    newer = await shared_house.enrol("twice")
    assert newer.agent_id == host.agent_id
    async with shared_house.agent(newer):
        async with shared_house.socket(kept.tls()) as socket:
            assert await Agent(socket).closed() == CloseCode.REVOKED
        entries = await shared_house.ledger("agents.connect", newer)
        assert "not one of the agent's present ones" in entries[-1]["reason"]


@SHARING
async def test_a_refused_certificate_does_not_push_out_the_good_one(shared_house: House) -> None:
    """Whoever is refused on connecting leaves the agent's living session alone."""
    host = await shared_house.enrol("good")
    await shared_house.hub.ask("write", f"agents/{host.agent_id}/approve", {})
    old = Host(
        agent_id=host.agent_id, serial=host.serial, folder=host.folder.rename(host.folder.with_suffix(".old"))
    )
    newer = await shared_house.enrol("good")
    async with shared_house.agent(newer) as agent:
        async with shared_house.socket(old.tls()) as socket:
            assert await Agent(socket).closed() == CloseCode.REVOKED
        await shared_house.put("web/good", password="one")
        assert isinstance(await agent.read("secrets/web/good"), wire.Result)


@SHARING
async def test_a_newer_connection_replaces_the_older(shared_house: House) -> None:
    """One agent, one session: the newest; the directory knows which."""
    await shared_house.nobody()
    host = await shared_house.enrol()
    async with shared_house.agent(host) as older, shared_house.agent(host) as newer:
        assert await older.closed() == CloseCode.REPLACED
        await newer.watch("secrets/web/db")

        async def known() -> bool:
            return await shared_house.directory.count() == 1

        await until(known)
        assert (await shared_house.gateway.health())["agents"] == 1

    async def forgotten() -> bool:
        return await shared_house.directory.count() == 0

    await until(forgotten)


@SHARING
async def test_connected_agents_are_counted(shared_house: House) -> None:
    """The metric is the number of agents that are connected: not of connections, and without who left."""

    def counted() -> float | None:
        return shared_house.hub.core.metrics.registry.get_sample_value("secrethub_agents_connected")

    await shared_house.nobody()
    one, other = await shared_house.enrol(), await shared_house.enrol()
    assert counted() == 0
    async with shared_house.agent(one):
        assert counted() == 1
        async with shared_house.agent(one) as newer, shared_house.agent(other):
            await until(lambda: counted() == 2)
            assert isinstance(await newer.read("secrets/web/none"), wire.Error)
            await shared_house.hub.ask("write", f"agents/{other.agent_id}/revoke")
            await until(lambda: counted() == 1)
        await until(lambda: counted() == 0)


@SHARING
async def test_a_changed_policy_is_told_and_takes_effect(shared_house: House) -> None:
    """When a policy takes a path away, the agent hears of it, reads it no more and is told no more."""
    await shared_house.put("web/changing", password="one")
    await shared_house.hub.ask("write", "sys/policies/acl/changing", {"policy": POLICY})
    host = await shared_house.enrol(role="changing")
    async with shared_house.agent(host) as agent:
        await agent.watch("secrets/web/changing", "secrets/web/changing-open")
        only = {**POLICY, "statements": [{**POLICY["statements"][0], "paths": ["secrets/web/changing-open"]}]}  # type: ignore[dict-item]
        await shared_house.hub.ask("write", "sys/policies/acl/changing", {"policy": only})
        await agent.hear(wire.PolicyChanged)
        refused = await agent.read("secrets/web/changing")
        assert isinstance(refused, wire.Error)
        assert refused.code == "permission_denied"
        await shared_house.put("web/changing", password="two")
        await shared_house.put("web/changing-open", password="x")
        assert (await agent.hear(wire.Changed)).path == "secrets/web/changing-open"


@SHARING
async def test_missed_changes_are_made_up_for(shared_house: House) -> None:
    """When changes may have been missed agents are told to look at everything again."""
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        await agent.watch("secrets/web/missed")
        shared_house.hub.core.caches.flush()
        await agent.hear(wire.PolicyChanged)
        changed = await agent.hear(wire.Changed)
        assert (changed.path, changed.version) == ("secrets/web/missed", 0)


async def test_connections_that_say_nothing_hold_nobody_up(house: House) -> None:
    """Agents get in beside many connections that never begin their handshake."""
    host = await house.enrol()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            _, writer = await asyncio.open_connection("127.0.0.1", house.gateway.port)
            stack.callback(writer.close)
        async with house.agent(host):
            pass


async def test_a_sealed_core_keeps_its_agents_and_tells_them(house: House) -> None:
    """While sealed reads are answered with sealed; after unsealing the same connection reads on."""
    await house.put("web/db", password="one")
    host = await house.enrol()
    core = house.hub.core
    kept = Keyring.load(core.keyring().export())
    async with house.agent(host) as agent:
        await set_sealed(core.database, unsealed_by=None)
        refused = await agent.read("secrets/web/db")
        assert isinstance(refused, wire.Error)
        assert refused.code == "sealed"
        async with house.socket(host.tls()) as socket:
            assert await Agent(socket).closed() == CloseCode.TRY_AGAIN_LATER
        epoch = await set_sealed(core.database, unsealed_by=bytes(32))
        await core.unseal(kept, epoch, core.keys.cluster_id)
        await agent.hear(wire.PolicyChanged)
        assert isinstance(await agent.read("secrets/web/db"), wire.Result)


@SHARING
async def test_a_certificate_is_renewed_over_the_connection(shared_house: House) -> None:
    """A new key gets a new certificate, and it connects."""
    host = await shared_house.enrol()
    key = keys.generate("ecdsa-p256")
    async with shared_house.agent(host) as agent:
        await agent.say(wire.RenewCertificate(id=1, csr=request(key)))
        issued = await agent.hear(wire.Certificate)
        await agent.say(wire.RenewCertificate(id=2, csr="no csr"))
        assert (await agent.hear(wire.Error)).code == "invalid_request"
    (host.folder / "cert.pem").write_text(issued.certificate + issued.ca_chain[0])
    (host.folder / "key.pem").write_bytes(keys.private_pem(key))
    async with shared_house.agent(host):
        pass


@SHARING
async def test_fragments_are_joined(shared_house: House) -> None:
    """A message in several frames is one message."""
    await shared_house.put("web/fragments", password="one")
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        frame = agent.protocol.send(wire.Read(id=1, path="secrets/web/fragments")).decode()
        await agent.socket.send([frame[:5], "", frame[5:9], frame[9:]])
        assert (await agent.hear(wire.Result)).data == {"password": "one"}


@SHARING
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x00\x01", CloseCode.PROTOCOL),
        ("{}", CloseCode.PROTOCOL),
        ('{"type":"read","id":1,"path":"secrets/web/db"', CloseCode.PROTOCOL),
        ("x" * (TO_CORE_LIMIT + 1), CloseCode.TOO_BIG),
    ],
    ids=["binary", "no-message", "cut-off", "too-big"],
)
async def test_what_is_no_message_ends_the_connection(
    shared_house: House, sent: bytes | str, code: CloseCode
) -> None:
    """Binary, malformed and oversized messages close the connection with a telling code."""
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        await agent.socket.send(sent)
        assert await agent.closed() == code


@SHARING
@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"subprotocols": None}, 400),
        ({"subprotocols": ["secrethub.agent.v2"]}, 400),
        ({"origin": "https://evil.example.com"}, 403),
    ],
    ids=["no-subprotocol", "other-subprotocol", "browser"],
)
async def test_what_is_no_agent_gets_no_websocket(
    shared_house: House, how: dict[str, Any], status: int
) -> None:
    """Other subprotocols and browsers are turned away before the WebSocket opens."""
    host = await shared_house.enrol()
    with pytest.raises(InvalidStatus) as caught:
        async with shared_house.socket(host.tls(), **how):
            pass
    assert caught.value.response.status_code == status


async def test_a_herd_is_let_in_bit_by_bit(database_url: str, tmp_path: Path) -> None:
    """Beyond the burst agents are told to come back later, each a bit later than the one before."""
    gateway = AgentGateway(rate=0.5, burst=2)
    async with opened(database_url, tmp_path, gateway) as house:
        host = await house.enrol()
        async with house.agent(host), house.agent(host):
            waits = []
            for _ in range(3):
                with pytest.raises(InvalidStatus) as caught:
                    async with house.socket(host.tls()):
                        pass
                assert caught.value.response.status_code == 503
                waits.append(int(caught.value.response.headers["Retry-After"]))
        assert waits == sorted(waits)
        assert waits[0] < waits[-1]
        assert house.refusals("busy") == 3


async def test_a_revoked_agent_takes_no_turns_of_others(database_url: str, tmp_path: Path) -> None:
    """One that comes again and again after its revocation is put off before it costs anybody a turn."""
    async with opened(database_url, tmp_path, AgentGateway(rate=0.01, burst=30)) as house:
        revoked, other = await house.enrol("revoked"), await house.enrol("other")
        await house.hub.ask("write", f"agents/{revoked.agent_id}/revoke", {})
        for _ in range(40):
            with contextlib.suppress(InvalidStatus):
                async with house.socket(revoked.tls()) as socket:
                    assert await Agent(socket).closed() == CloseCode.REVOKED
        assert house.refusals("too_often") > 0
        async with house.agent(other):
            pass


async def test_an_agent_that_does_not_read_is_cut_off(database_url: str, tmp_path: Path) -> None:
    """Answers that nobody takes do not pile up: the connection ends, others do not notice."""
    gateway = AgentGateway(limits=Limits(slow=0.2, inbox=8))
    async with opened(database_url, tmp_path, gateway) as house:
        await house.put("web/big", blob="x" * 900_000)
        slow, other = await house.enrol("slow"), await house.enrol("other")
        async with house.agent(other) as good:
            writer, session = await _deaf(house, slow)
            for number in range(1, 60):
                writer.write(_masked(wire.Read(id=number, path="secrets/web/big")))
            await until(lambda: session.ended)
            await until(lambda: len(gateway._supervisor) == 1)
            writer.transport.abort()
            assert isinstance(await good.read("secrets/web/big"), wire.Result)


async def test_pongs_that_nobody_takes_do_not_pile_up(database_url: str, tmp_path: Path) -> None:
    """Who pings for ever and takes no answer is held in its own socket and cut off."""
    gateway = AgentGateway(limits=Limits(slow=0.5))
    async with opened(database_url, tmp_path, gateway) as house:
        writer, session = await _deaf(house, await house.enrol())
        connection = session._transport
        assert isinstance(connection, AgentConnection)
        most = 0
        pings = (b"\x89\xfd\x00\x00\x00\x00" + b"x" * 125) * 512
        writer.transport.set_write_buffer_limits(high=len(pings))
        while not session.ended:
            most = max(most, connection._transport.get_write_buffer_size())
            if writer.transport.get_write_buffer_size() < len(pings):
                writer.write(pings)
            await asyncio.sleep(0)
        assert 0 < most < 2**20
        await until(lambda: len(gateway._supervisor) == 0)
        writer.transport.abort()


async def _deaf(house: House, host: Host) -> tuple[asyncio.StreamWriter, AgentSession]:
    """Connect an agent that takes nothing off its connection; return its way to talk and its session."""
    _, writer = await asyncio.open_connection("127.0.0.1", house.gateway.port, ssl=host.tls())
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: secrethub.agent.v1\r\n\r\n"
    )
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(_masked(wire.Hello(version="0", name="n")))
    find = house.gateway._supervisor.find
    await until(lambda: (session := find(host.agent_id)) is not None and session._protocol.state == "open")
    session = find(host.agent_id)
    assert session is not None
    return writer, session


def _masked(message: wire.Message) -> bytes:
    """Return a message in a client's frame, masked with zeros."""
    data = json.dumps(msgspec.to_builtins(message)).encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data


async def test_stopping_has_agents_move_elsewhere(house: House) -> None:
    """Before the gateway closes it says where else to connect."""
    host = await house.enrol()
    async with house.agent(host) as agent:
        stopping = asyncio.create_task(house.gateway.stop(within=60))
        drain = await agent.hear(wire.Drain)
        assert drain.urls == (ELSEWHERE,)
        await agent.socket.close()
        await stopping
    assert house.gateway.port == 0


async def test_stopping_closes_those_who_stay(house: House) -> None:
    """Agents that do not move in time are closed with a code that says so."""
    host = await house.enrol()
    async with house.agent(host) as agent:
        stopping = asyncio.create_task(house.gateway.stop(within=0.01))
        await agent.hear(wire.Drain)
        assert await agent.closed() == CloseCode.DRAINED
        await stopping


@SHARING
async def test_the_gateway_names_itself_by_uri(shared_house: House) -> None:
    """The listener shows a gateway's certificate of this cluster, and TLS 1.3 only."""
    host = await shared_house.enrol()
    async with shared_house.agent(host) as agent:
        tls = agent.socket.transport.get_extra_info("ssl_object")
        assert tls.version() == "TLSv1.3"
        uris = [value for kind, value in tls.getpeercert()["subjectAltName"] if kind == "URI"]
        cluster = (await load_trust(shared_house.hub.core)).cluster
        assert uris == [f"secrethub://{cluster}/gateway/n1"]
    older = host.tls()
    older.minimum_version = ssl.TLSVersion.TLSv1_2
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(NO_TLS):
        async with shared_house.socket(older):
            pass


async def test_an_edited_row_does_not_let_an_agent_in(house: House) -> None:
    """An agent's row that was edited by SQL is not believed, on connecting and afterwards."""
    host = await house.enrol()
    connection = await asyncpg.connect(house.hub.url)
    await connection.execute("UPDATE agents SET body = jsonb_set(body, '{role}', '\"root\"')")
    await connection.close()
    house.hub.core.authority.drop()
    async with house.socket(host.tls()) as socket:
        assert await Agent(socket).closed() in {CloseCode.TRY_AGAIN_LATER, CloseCode.REVOKED}
    entries = await house.ledger("agents.connect")
    assert entries[-1]["outcome"] == "denied"
    assert re.search("integrity", entries[-1]["reason"])
