"""A whole node in this process, without Ray: the same classes as in a cluster, on real sockets."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest
import pytest_asyncio

from actors import wiring
from actors.local import LocalTree
from actors.wiring import Pulses
from secrethub.clock import SystemClock
from secrethub.engines.engine import Engine
from secrethub.node import Listener, NodeSettings
from serve.timing import USUAL, Timing
from serve.wiring import Process
from tests.conftest import clone_of, run_apart
from tests.gateway.declared import check_declared
from tests.http_transport import PlainTransport

_FIRST_PORT, _SHARE, _SHARES = 20_000, 1_500, 8
"""Below those that the system gives to clients, who would take one between its choice and its use."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
_TURNS = itertools.count(secrets.randbelow(_SHARE))


def free_port() -> int:
    """Return a port that nobody listens on, and that no other test of this run is about to."""
    while True:
        port = _FIRST_PORT + _WORKER * _SHARE + next(_TURNS) % _SHARE
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def node_settings(folder: Path, database_url: str, name: str = "n1", key: str | None = None) -> NodeSettings:
    """Settings of a node on free ports of loopback; ``key`` shares another node's cluster key."""
    base = folder / name
    for part in ("run", "state"):
        (base / part).mkdir(parents=True, mode=0o700)
    cluster_key = base / "cluster-key"
    cluster_key.touch(mode=0o600)
    cluster_key.write_text(key or os.urandom(32).hex())
    agents = Listener("127.0.0.1", free_port())
    return NodeSettings(
        node=name,
        run_dir=str(base / "run"),
        state_dir=str(base / "state"),
        database_url=database_url,
        cluster_key_file=str(cluster_key),
        http=Listener("127.0.0.1", free_port()),
        tls=Listener("127.0.0.1", free_port()),
        agents=agents,
        serve=None,
        metrics=Listener("127.0.0.1", free_port()),
        agent_urls=(f"wss://127.0.0.1:{agents.port}",),
    )


NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: it trusts no authority, so none is read."""


class MovableClock(SystemClock):
    """The wall clock, and how far ahead of it a node is."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self._ahead

    def move(self, seconds: float) -> None:
        """Be so many seconds ahead from now on."""
        self._ahead = timedelta(seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """A template database in which a cluster was made, and what opens it."""

    template: str
    cluster_key: str = field(repr=False)
    root: str = field(repr=False)
    shares: tuple[str, ...] = field(repr=False)


@dataclass
class Caller:
    """Somebody with a client of a node's plain HTTP door, its root token and its shares."""

    settings: NodeSettings
    client: httpx2.AsyncClient
    root: str = field(default="", kw_only=True)
    shares: list[str] = field(default_factory=list, kw_only=True)

    async def call(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx2.Response:
        headers = options.pop("headers", {})
        chosen = self.root if token is None else token
        if chosen:
            headers = {"X-Vault-Token": chosen, **headers}
        return await self.client.request(method, f"/v1/{path}", headers=headers, **options)

    async def initialise(self, shares: int = 5, threshold: int = 3) -> None:
        answer = await self.call(
            "PUT", "sys/init", json={"secret_shares": shares, "secret_threshold": threshold}
        )
        assert answer.status_code == 200, answer.text
        self.root = answer.json()["root_token"]
        self.shares = answer.json()["keys_base64"]

    async def unseal(self) -> None:
        for share in self.shares[:3]:
            answer = await self.call("PUT", "sys/unseal", json={"key": share})
            assert answer.status_code == 200, answer.text
        assert answer.json()["sealed"] is False

    async def open(self, cluster: Initialised) -> None:
        """Unseal a clone of a cluster that was made before."""
        self.root, self.shares = cluster.root, list(cluster.shares)
        await self.unseal()

    async def token(self, name: str, policy: dict[str, Any] | str, **options: Any) -> str:
        """Write a policy and return a token that has it."""
        written = await self.call("PUT", f"sys/policies/acl/{name}", json={"policy": policy})
        assert written.status_code == 204, written.text
        made = await self.call("POST", "auth/token/create", json={"policies": [name], **options})
        assert made.status_code == 200, made.text
        return str(made.json()["auth"]["client_token"])


@dataclass
class Node(Caller):
    """A running node, whose parts are in this process."""

    tree: LocalTree
    process: Process
    clock: MovableClock

    async def call(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx2.Response:
        response = await super().call(method, path, token, **options)
        check_declared(self.process.core, method, path, options.get("params"), response)
        return response


@contextlib.asynccontextmanager
async def running(
    settings: NodeSettings,
    kinds: Mapping[str, Engine] | None = None,
    timing: Timing = USUAL,
    pulses: Pulses = wiring.USUAL,
) -> AsyncIterator[Node]:
    """Start a node that is a cluster by itself; ``kinds`` of engine instead of the usual ones."""
    clock = MovableClock()
    tree = LocalTree(settings, clock=clock, pulses=pulses)
    await tree.start()
    process = Process(settings, tree.handles, ("gateway", "agents"), "single", kinds, clock, timing)
    try:
        await process.start()
        await tree.workplace.lend(process.core)
        assert settings.http is not None
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.http.port}", timeout=20, transport=PlainTransport()
        ) as client:
            yield Node(settings, client, tree, process, clock)
    finally:
        await tree.workplace.take_back()
        await process.stop()
        await tree.stop()


@pytest.fixture
def timing() -> Timing:
    """How long the node waits; a test has it otherwise with ``parametrize``."""
    return USUAL


@pytest.fixture
def pulses() -> Pulses:
    """How often the node's actors look by themselves; a test has it otherwise with ``parametrize``."""
    return wiring.USUAL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for copies and archives of the ledger; the node may write there and beside it."""
    made = tmp_path / "allowed" / "archive"
    made.mkdir(parents=True, mode=0o700)
    return made


@pytest.fixture(scope="session")
def initialised(
    postgres_url: str, _template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Initialised]:
    """A cluster for all tests that ask for a ``node``: each has a clone, and need not make its own."""

    async def made(settings: NodeSettings) -> Node:
        async with running(settings) as node:
            await node.initialise()
        return node

    with clone_of(postgres_url, _template) as url:
        settings = node_settings(tmp_path_factory.mktemp("initialised"), url)
        node = run_apart(made(settings))
        yield Initialised(
            template=urlsplit(url).path[1:],
            cluster_key=Path(settings.cluster_key_file).read_text(),
            root=node.root,
            shares=tuple(node.shares),
        )


@pytest.fixture
def of_template(request: pytest.FixtureRequest) -> Initialised | None:
    """The cluster that is in the test's database already; None for a test that asks for no ``node``."""
    if "initialised" not in request.fixturenames:
        return None
    found: Initialised = request.getfixturevalue("initialised")
    return found


@pytest.fixture
def database_url(postgres_url: str, _template: str, of_template: Initialised | None) -> Iterator[str]:
    """URL of a database of this test alone, empty or with a cluster in it; dropped afterwards."""
    with clone_of(postgres_url, of_template.template if of_template else _template) as url:
        yield url


@pytest.fixture
async def sealed_node(
    database_url: str,
    of_template: Initialised | None,
    tmp_path: Path,
    folder: Path,
    timing: Timing,
    pulses: Pulses,
) -> AsyncIterator[Node]:
    """A node on an empty database."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url, key=of_template.cluster_key if of_template else None),
        audit_dirs=(str(folder.parent),),
    )
    async with running(settings, timing=timing, pulses=pulses) as node:
        yield node


@pytest.fixture
async def own(sealed_node: Node, initialised: Initialised) -> Node:
    """A node of one test alone that is initialised and unsealed."""
    await sealed_node.open(initialised)
    return sealed_node


@pytest.fixture
def node(own: Node) -> Node:
    """A node that is initialised and unsealed; modules whose tests share one have it otherwise."""
    return own


@pytest.fixture
async def leasing(database_url: str, tmp_path: Path, initialised: Initialised) -> AsyncIterator[Node]:
    """An open node whose operator lets it connect to loopback."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url, key=initialised.cluster_key),
        outbound_networks=("127.0.0.1/32",),
    )
    async with running(settings) as node:
        await node.open(initialised)
        yield node


SHARING = pytest.mark.asyncio(loop_scope="module")
"""For tests that ask a ``shared_node``: they run in the loop in which it does."""
ALONE = pytest.mark.asyncio(loop_scope="function")
"""For a test that asks for its ``own`` node, in a module whose other tests share one."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_node(
    shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    """A node for tests that change nothing which others of their module see: starting one takes 0.2 s."""
    settings = node_settings(tmp_path_factory.mktemp("shared"), shared_database_url)
    async with running(settings) as node:
        await node.initialise()
        await node.unseal()
        yield node


async def emptied(node: Node, mount: str) -> Node:
    """Mount a way of logging in anew, so that nothing is there of what other tests of the module left."""
    for method, body in (("DELETE", None), ("POST", {"type": mount})):
        answer = await node.call(method, f"sys/auth/{mount}", json=body)
        assert answer.status_code == 204, answer.text
    return node


def native(*paths: str, capabilities: tuple[str, ...] = ("read",), effect: str = "allow") -> dict[str, Any]:
    """A native policy with one statement."""
    return {
        "version": "1",
        "statements": [{"effect": effect, "paths": list(paths), "capabilities": list(capabilities)}],
    }
