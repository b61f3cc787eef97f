"""Fixtures of tests on leases: a node whose mount ``db/`` leases out files, and their folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from secrethub.engines.kinds import engines
from tests.gateway.behind import until
from tests.gateway.conftest import Initialised, Node, node_settings, running
from tests.gateway.lease_engine import FolderEngine


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The target: one file for everything that was made and is not gone."""
    folder = tmp_path / "target" / "files"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
async def leased(
    database_url: str, tmp_path: Path, place: Path, initialised: Initialised
) -> AsyncIterator[Node]:
    """A node that leases out files at ``db/``."""
    kinds = {**engines(), "folder": FolderEngine(place)}
    settings = node_settings(tmp_path, database_url, key=initialised.cluster_key)
    async with running(settings, kinds) as node:
        await node.open(initialised)
        made = await node.call("POST", "sys/mounts/db", json={"type": "folder"})
        assert made.status_code == 204, made.text
        yield node


async def creds(node: Any, token: str | None = None, role: str = "app") -> dict[str, Any]:
    """Lease out a file, and return the whole answer."""
    answer = await node.call("GET", f"db/creds/{role}", token)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def files(place: Path) -> set[str]:
    """Return what is there at the target."""
    return {file.name for file in place.iterdir()}


async def gone(place: Path, *names: str) -> None:
    """Wait until none of these is there any more."""

    async def none_left() -> bool:
        return not files(place) & set(names)

    await until(none_left)
