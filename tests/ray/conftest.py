"""One real Ray cluster for all tests here, with the supervision tree in it, initialised and unsealed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest

from actors.handles import RayHandles, SealClient
from secrethub.node import VARIABLE, NodeSettings, write_node_file
from tests.shared import until_last_use

NODE = "n1"
_PROJECT = Path(__file__).resolve().parents[2]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the tests know of the running cluster. Asks Ray anew for each test's event loop."""

    psk: bytes
    database_url: str
    shares: tuple[bytes, ...]
    root_token: str
    session: Path

    def handles(self) -> RayHandles:
        """Return handles for the present event loop."""
        return RayHandles(NODE)

    def seal(self) -> SealClient:
        """Return a gateway's way to the seal."""
        return SealClient(self.handles(), self.psk)


def _run(work: Coroutine[Any, Any, T]) -> T:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def _ray_database(postgres_url: str, _template: str) -> Iterator[str]:
    name = f"ray_{secrets.token_hex(6)}"
    _run(_execute(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{_template}"'))
    yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    _run(_execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, _ray_database: str) -> Iterator[Cluster]:
    """A private single-node Ray with token authentication, and the tree in it."""
    with until_last_use(request, Path(__file__).parent) as stack:
        # A short path, because Ray's sockets live below it; only its owner may enter.
        folder = tempfile.TemporaryDirectory(prefix="shray-", ignore_cleanup_errors=True)
        yield stack.enter_context(_cluster(Path(stack.enter_context(folder)), _ray_database))


@contextlib.contextmanager
def _cluster(folder: Path, database_url: str) -> Iterator[Cluster]:
    (folder / "empty").mkdir()
    psk = secrets.token_bytes(32)
    key = folder / "cluster.key"
    key.touch(0o600)
    key.write_text(psk.hex())
    node_file = folder / "node.json"
    write_node_file(
        node_file,
        NodeSettings(
            node=NODE,
            run_dir=str(folder),
            state_dir=str(folder),
            database_url=database_url,
            cluster_key_file=str(key),
            http=None,
            tls=None,
            agents=None,
            serve=None,
            metrics=None,
            agent_urls=(),
        ),
    )
    import ray
    from ray._private.authentication_test_utils import reset_auth_token_state

    from actors.remote import start_node, start_tree

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # As a node's own Ray has it, or whatever else runs on the machine would go before every actor.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv(VARIABLE, str(node_file))
        patch.setenv("PYTHONPATH", str(_PROJECT))
        reset_auth_token_state()  # Ray read its environment when it was imported
        # Ray puts the driver's working directory at the head of its workers' import path.
        before = Path.cwd()
        os.chdir(folder / "empty")
        try:
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                object_store_memory=80 * 1024 * 1024,
                _temp_dir=str(folder / "ray"),
            )
        finally:
            os.chdir(before)
        try:
            _run(start_tree())
            _run(start_node(NODE))
            made = _run(SealClient(RayHandles(NODE), psk).initialise(3, 2))
            cluster = Cluster(
                psk=psk,
                database_url=database_url,
                shares=made.keys,
                root_token=made.root_token,
                session=folder / "ray",
            )
            _run(_unseal(cluster))
            yield cluster
        finally:
            ray.shutdown()
    reset_auth_token_state()


async def _unseal(cluster: Cluster) -> None:
    client = cluster.seal()
    if (await client.status()).sealed:
        for share in cluster.shares[:2]:
            await client.submit_share(share)


@pytest.fixture(autouse=True)
async def _whole(cluster: Cluster) -> None:
    """Begin every test with a cluster that is complete and unsealed."""
    await _unseal(cluster)
    assert await cluster.handles().live_nodes() == [NODE]
    assert (await cluster.handles().key_holder().call("health", timeout=30.0))["pid"]
