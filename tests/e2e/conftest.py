"""Clusters that several files here share, and the place where tests say what they measured."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.e2e.development import Development
from tests.folders import traversable
from tests.shared import until_last_use

MINUTES = "SECRETHUB_SOAK_MINUTES"
"""Variable that says for how long ``./dev soak`` goes on."""
_SEEN = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a line to what is shown when all tests have ended, passed or not."""
    return request.config.stash.setdefault(_SEEN, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what the tests measured."""
    seen = config.stash.get(_SEEN, [])
    if seen:
        terminalreporter.section("what clients saw")
        for line in seen:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def watched() -> float:
    """Seconds that a cluster is watched after a loss, before what was lost starts again and is watched, too.

    ``./dev soak`` asks for more.
    """
    return 60.0 * float(os.environ.get(MINUTES, "0.1"))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with a short path, for Ray's sockets and for PostgreSQL's unprivileged user."""
    with traversable() as folder:
        yield folder


@pytest.fixture(scope="session")
def development(request: pytest.FixtureRequest) -> Iterator[Development]:
    """One ``secrethub dev`` with Ray for all tests that leave it unsealed and working."""
    with until_last_use(request, Path(__file__).parent) as stack:
        made = Development(stack.enter_context(traversable()))
        stack.callback(made.end)
        made.begin()
        yield made


@pytest.fixture(scope="module")
def empty_database(postgres_url: str) -> Iterator[str]:
    """URL of a database with nothing in it; dropped afterwards."""
    name = f"e2e_{secrets.token_hex(6)}"
    _execute(postgres_url, f'CREATE DATABASE "{name}"')
    try:
        yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    finally:
        _execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _execute(url: str, statement: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # The test's own loop may be set up already.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, work()).result()
