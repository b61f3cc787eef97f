"""Fixtures that several kinds of tests share: a real PostgreSQL, and a fresh database in it.

The server is started once per test session and only when a test asks for it; each test gets a clone
of one migrated template database.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import hypothesis
import pytest
import uvloop

from cluster.postgres import EmbeddedPostgres
from serve.heap import settle
from tests.folders import traversable
from tests.shared import end_unused

T = TypeVar("T")

TEMPLATE = "migrated"

_CLUSTERS = (
    "tests/ray/",
    # What shares a cluster stands together.
    *(
        f"tests/e2e/test_{name}.py"
        for name in (
            *("canaries", "canaries_engines", "chaos", "leases_history", "dev"),
            *("demo", "two_nodes", "key_service"),
        )
    ),
)

# How long an example takes says how busy the machine is, and nothing of what is tested.
hypothesis.settings.register_profile("secrethub", deadline=None)
hypothesis.settings.load_profile("secrethub")

# Children inherit an ignored signal; tests that run under nohup would tell deaf processes.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give out whole files, those that start whole clusters one after another, and these first.

    Two clusters that start at once take each other's time on a small machine until one gives up.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "clusters" if nodeid.startswith(_CLUSTERS) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first, so that no worker has nothing left to do meanwhile."""

    def place(item: pytest.Item) -> int:
        found = (at for at, start in enumerate(_CLUSTERS) if item.nodeid.startswith(start))
        return next(found, len(_CLUSTERS))

    items.sort(key=place)
    for item in items:
        # A second one, beside the first, would last as long as the session.
        if "development" in getattr(item, "fixturenames", ()) and not item.nodeid.startswith(_CLUSTERS):
            raise pytest.UsageError(f"{item.nodeid} shares a cluster, so its file belongs in _CLUSTERS")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], uvloop.Loop]]:
    """Run tests in the loop in which servers and agents run."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_finish() -> None:
    """Collect garbage as a serving process does: to look through all that stays took a tenth of the time."""
    settle()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """End what no later test uses."""
    end_unused(item)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a running PostgreSQL server's own database, as its superuser."""
    with traversable() as folder:
        server = EmbeddedPostgres(folder, durable=False)
        try:
            yield run_apart(server.start())
        finally:
            run_apart(server.stop())
            server.remove()


@pytest.fixture(scope="session")
def _template(postgres_url: str) -> str:
    from secrethub.storage.migrate import upgrade

    run_apart(_execute(postgres_url, f'CREATE DATABASE "{TEMPLATE}"'))
    run_apart(upgrade(on_database(postgres_url, TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def database_url(postgres_url: str, _template: str) -> Iterator[str]:
    """URL of a migrated, empty database of this test alone; dropped afterwards."""
    with clone_of(postgres_url, _template) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database_url(postgres_url: str, _template: str) -> Iterator[str]:
    """URL of a database that tests of one module share; dropped after them."""
    with clone_of(postgres_url, _template) as url:
        yield url


@contextlib.contextmanager
def clone_of(postgres_url: str, template: str) -> Iterator[str]:
    """Give a clone of a database of a server, and drop it."""
    name = f"test_{secrets.token_hex(6)}"
    run_apart(_execute(postgres_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'))
    try:
        yield on_database(postgres_url, name)
    finally:
        run_apart(_execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


def on_database(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in a loop of its own thread: the test's loop may be set up already."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()
