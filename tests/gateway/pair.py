"""Fixtures of tests on two processes of one cluster."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.behind import until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.second_process import Second, started


async def healthy(process: Node | Second) -> bool:
    """Tell whether a process answers requests."""
    return (await process.call("GET", "sys/health", "")).status_code == 200


@contextlib.asynccontextmanager
async def beside(node: Node, folder: Path, database_url: str) -> AsyncIterator[Second]:
    """Start a second process of the node's cluster; it has the keys."""
    key = Path(node.settings.cluster_key_file).read_text()
    settings = node_settings(folder, database_url, "n2", key)
    async with started(settings, node.tree.handles) as process:
        await until(lambda: healthy(process))
        yield process


@pytest.fixture
async def second(own: Node, tmp_path: Path) -> AsyncIterator[Second]:
    """A second process of the node's cluster, with its keys."""
    async with beside(own, tmp_path, own.settings.database_url) as process:
        yield process
