"""All actors in one process, on a database of their own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from seal_steps import NODE

from actors.handles import SealClient
from actors.local import LocalTree
from secrethub.node import NodeSettings, read_cluster_key
from secrethub.storage.database import Database


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> NodeSettings:
    """A node on the test's own database."""
    key = tmp_path / "cluster.key"
    key.touch(0o600)
    key.write_text(secrets.token_hex(32))
    return NodeSettings(
        node=NODE,
        run_dir=str(tmp_path),
        state_dir=str(tmp_path),
        database_url=database_url,
        cluster_key_file=str(key),
        http=None,
        tls=None,
        agents=None,
        serve=None,
        metrics=None,
        agent_urls=(),
    )


@pytest.fixture
def psk(settings: NodeSettings) -> bytes:
    """The cluster's pre-shared key."""
    return read_cluster_key(settings)


@pytest.fixture
async def database(settings: NodeSettings) -> AsyncIterator[Database]:
    """The test's own view of the database."""
    database = Database(settings.database_url, size=2)
    yield database
    await database.close()


@pytest.fixture
async def tree(settings: NodeSettings) -> AsyncIterator[LocalTree]:
    """All actors in this process."""
    tree = LocalTree(settings)
    await tree.start()
    yield tree
    await tree.stop()


@pytest.fixture
def client(tree: LocalTree, psk: bytes) -> SealClient:
    """A gateway's way to the seal."""
    return SealClient(tree.handles, psk)
