"""Fixtures of the agent's tests: a Core at the outer port, and agents as their own processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess
from core_peer import Authorities, CorePeer


@pytest.fixture(scope="session")
def authorities() -> Authorities:
    """A cluster's certificate authorities."""
    return Authorities()


@pytest.fixture
async def core(authorities: Authorities) -> AsyncIterator[CorePeer]:
    """A Core that listens on both doors."""
    peer = CorePeer(authorities=authorities)
    async with peer.https(), peer.agents():
        yield peer


@pytest.fixture
def place() -> Iterator[Path]:
    """A short private directory: paths of Unix sockets must be short, and pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="sha-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def agent(core: CorePeer, place: Path) -> AsyncIterator[AgentProcess]:
    """An agent that is not started yet; ended after the test."""
    process = AgentProcess(core, place)
    yield process
    if process.process is not None and not process.ended:
        await process.kill()
