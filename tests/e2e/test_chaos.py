"""What an accident costs: processes killed with SIGKILL one after another, under a steady load."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import time
from collections.abc import Callable, Iterator

import asyncpg
import pytest

from tests.e2e.api import readers
from tests.e2e.development import Development
from tests.e2e.hosts import Host
from tests.e2e.load import Load
from tests.e2e.processes import found, killed, the, until

_MINUTES = float(os.environ.get("SECRETHUB_SOAK_MINUTES", "5"))
pytestmark = pytest.mark.timeout(300 + 120 * _MINUTES)

SEAL_STATE = r"ray::SealState"
SUPERVISOR = r"ray::Supervisor"
GATEWAY = r"ray::ServeReplica:secrethub:Gateway"
OTHERS = (
    r"ray::KeyHolder",
    r"ray::NodeSupervisor",
    r"ray::SessionDirectory",
    r"ray::DistributedLock",
    r"ray::ServeReplica:secrethub:AgentGateway",
)
SECRET = "load/delivered"


@pytest.fixture
def host(development: Development, request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host whose agent delivers :data:`SECRET`."""
    name = request.node.name[:40]
    made = Host(development.folder / name, name)
    with development.api() as api:
        api.put_secret(SECRET, value="first")
        machine = api.machine(name, readers(f"secrets/{SECRET}"))
    try:
        made.enrol([development.core.addresses().api_tls], development.ca_file, machine, SECRET)
        made.wait_for("first")
        yield made
    finally:
        made.stop()


class Accidents:
    """Kills one process after another and waits until what it did is done again."""

    def __init__(
        self, development: Development, host: Host, load: Load, report: Callable[[str], None]
    ) -> None:
        self._development = development
        self._host = host
        self._load = load
        self._report = report
        self._changes = 0

    def kill(self, pattern: str) -> None:
        """Kill the actor or replica of that name; another one must take its place, and everything work."""
        below = self._development.pid
        old = the(below, pattern)
        began = time.monotonic()
        killed(old)
        until(lambda: bool(found(below, pattern) - {old}), f"another {pattern}")
        replaced = time.monotonic() - began
        self._mend(pattern.removeprefix("ray::"), began, f"another process after {replaced:.2f} s")

    def kill_agent(self) -> None:
        """Kill the agent and start it again, as a service manager does."""
        began = time.monotonic()
        self._host.kill()
        self._host.start()
        self._mend("agent", began, "started again at once")

    def cut_connections(self) -> None:
        """End every connection to PostgreSQL: what was being committed is not known to be."""
        began = time.monotonic()
        count = asyncio.run(_cut(self._development.core.addresses().database_url))
        self._mend("PostgreSQL", began, f"{count} connections cut")

    def _mend(self, what: str, began: float, how: str) -> None:
        """Wait until requests, the seal and the agent are as before, and say how long that took."""
        with self._development.api() as api:
            until(api.is_open, "gateway and SealState say unsealed")
            opened = time.monotonic() - began
            self._changes += 1
            api.put_secret(SECRET, value=self._changes)
            self._host.wait_for(self._changes)
        delivered = time.monotonic() - began
        seen = self._load.answered
        until(lambda: self._load.answered > seen + 100, "the load goes on")
        self._report(f"  {what}: {how}, all open after {opened:.2f} s, delivered {delivered:.2f} s")
        self._report(f"    {self._load.told(began)}")


async def _cut(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
            )
        )
    finally:
        await connection.close()


def seal_row(development: Development) -> tuple[bool, int]:
    """What the database says of the seal, and how often it was changed."""

    async def read() -> tuple[bool, int]:
        connection = await asyncpg.connect(development.core.addresses().database_url)
        try:
            row = await connection.fetchrow("SELECT sealed, seal_epoch FROM cluster")
        finally:
            await connection.close()
        return bool(row["sealed"]), int(row["seal_epoch"])

    return asyncio.run(read())


def holds(development: Development, load: Load) -> None:
    """Nothing acknowledged is lost, nothing older was read, the ledger is whole, no key was written down."""
    assert asyncio.run(load.lost(development.url)) == []
    with development.api() as api:
        verified = api.call("POST", "sys/audit/verify")["data"]
    assert verified["ok"], verified["first_bad"]
    found = development.canaries.in_files(*development.folders)
    assert not found, "\n".join(found)


def test_one_after_another_is_killed_under_load(
    development: Development, host: Host, report: Callable[[str], None]
) -> None:
    """Actors, gateway, agent and connections come back, unsealed, and no acknowledged write is lost."""
    before = seal_row(development)
    with Load(development.url, development.root_token) as load:
        until(lambda: load.answered > 100, "the load runs")
        report("killed under load, one after another, on secrethub dev:")
        accidents = Accidents(development, host, load, report)
        accidents.kill(SEAL_STATE)
        accidents.kill(SUPERVISOR)
        accidents.kill(GATEWAY)
        accidents.kill_agent()
        accidents.cut_connections()
    report(f"  altogether: {load.told()}")
    holds(development, load)
    assert seal_row(development) == before
    assert not [what for what in load.failures() if "sealed" in what]


@pytest.mark.soak
def test_whatever_happens_at_random(
    development: Development, host: Host, report: Callable[[str], None]
) -> None:
    """For as long as is asked for, whatever is killed at random comes back, unsealed, and nothing is lost."""
    before = seal_row(development)
    with Load(development.url, development.root_token, pause=0.02) as load:
        until(lambda: load.answered > 100, "the load runs")
        report(f"killed at random for {_MINUTES:g} minutes on secrethub dev:")
        accidents = Accidents(development, host, load, report)
        end = time.monotonic() + 60 * _MINUTES
        happen = [
            functools.partial(accidents.kill, name) for name in (SEAL_STATE, SUPERVISOR, GATEWAY, *OTHERS)
        ]
        happen += [accidents.kill_agent, accidents.cut_connections]
        while time.monotonic() < end:
            random.choice(happen)()
    report(f"  altogether: {load.told()}")
    holds(development, load)
    assert seal_row(development) == before
    assert not [what for what in load.failures() if "sealed" in what]
