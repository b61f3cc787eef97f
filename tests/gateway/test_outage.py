"""PostgreSQL goes away and comes back: nothing is answered meanwhile, nothing is sealed, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.postgres import EmbeddedPostgres
from secrethub.errors import Unavailable
from secrethub.operations.reencrypt import reencrypt
from secrethub.storage.migrate import upgrade
from tests.folders import traversable
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native, node_settings, running
from tests.gateway.key_steps import got, put, rotated


@dataclass
class Server:
    """A PostgreSQL server of this test's own."""

    embedded: EmbeddedPostgres
    url: str

    def processes(self) -> list[int]:
        """Return the server's process and its children."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        mother = self.embedded.pid
        return [mother, *(pid for pid, parent in parents.items() if parent == mother)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of them."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self) -> None:
        """End it without any warning."""
        self.signal(signal.SIGKILL)
        await self.embedded.stop()

    async def start_again(self) -> None:
        """Start it after it was killed."""
        assert await self.embedded.start() == self.url


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can traverse to."""
    with traversable() as made:
        yield made


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    """A running server with a migrated database."""
    embedded = EmbeddedPostgres(folder, durable=False)
    started = Server(embedded, await embedded.start())
    await upgrade(started.url)
    try:
        yield started
    finally:
        with contextlib.suppress(RuntimeError):
            started.signal(signal.SIGCONT)
        await embedded.stop()
        embedded.remove()


@pytest.fixture
async def node(server: Server, tmp_path: Path) -> AsyncIterator[Node]:
    """A node on it, unsealed, with a secret."""
    async with running(node_settings(tmp_path, server.url)) as started:
        await started.initialise()
        await started.unseal()
        await started.call("POST", "secrets/a", json={"data": {"k": "v"}})
        yield started


async def _refuses(node: Node) -> None:
    """Check what a node answers while there is no database: 503 as unavailable, never as sealed."""

    async def refused(method: str, path: str, body: object) -> None:
        answer = await node.call(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
        assert "sealed" not in answer.text
        assert "postgres" not in answer.text.lower()

    # At the same time: where the database stands still, each waits for its own answer.
    await asyncio.gather(
        refused("GET", "secrets/a", None),
        refused("POST", "secrets/a", {"data": {"k": "w"}}),
        refused("PUT", "sys/policies/acl/p", {"policy": native("secrets/a")}),
        refused("POST", "sys/policies/bindings/default", {"role": "web"}),
        refused("POST", "sys/policies/replay", {"name": "p", "policy": native("secrets/a")}),
        refused("POST", "auth/approle/login", {"role_id": "r", "secret_id": "s"}),
    )


async def _healthy(node: Node) -> bool:
    return (await node.call("GET", "sys/health")).status_code == 200


async def _silent(node: Node) -> bool:
    """Tell whether health says that the database does not answer; it must always say something, at once."""
    asked = time.monotonic()
    answer = await node.call("GET", "sys/health")
    assert time.monotonic() - asked < 5
    body = answer.json()
    assert body["sealed"] is False
    assert body["initialized"] is True
    return bool(answer.status_code == 503 and body["database"] == "silent")


async def _as_before(node: Node, token: str) -> None:
    """Check that the node serves again, without having been restarted or unsealed."""
    await until(lambda: _healthy(node))
    assert node.process.core.unsealed
    assert (await node.call("GET", "secrets/a", token)).json()["data"]["data"] == {"k": "v"}
    assert (await node.call("POST", "secrets/b", json={"data": {"k": "v"}})).status_code == 200
    assert (await node.call("PUT", "sys/policies/acl/q", json={"policy": native("x")})).status_code == 204
    status = (await node.call("GET", "sys/seal-status")).json()
    assert status["sealed"] is False


async def test_budgets_after_a_crash(node: Node, server: Server) -> None:
    """A crash of PostgreSQL makes the budgets of rate limits whole, and no more than that."""
    # Nothing comes back while the test runs.
    body = {"rate": 20, "path": "secret/data/limited", "interval": "720h", "group_by": "none"}
    assert (await node.call("POST", "sys/quotas/rate-limit/few", json=body)).status_code == 204
    assert await _admitted(node, 10) == 10
    given_back = "SELECT 1 FROM quota_levels WHERE abs(level - 10) < 0.5"
    await until(lambda: sql(server.url, given_back))
    await server.kill()
    await server.start_again()
    await until(lambda: _healthy(node))
    assert 19 <= await _admitted(node, 40) <= 20


async def _admitted(node: Node, times: int) -> int:
    """Read what is limited so many times, and return how often that was let through."""
    codes = [(await node.call("GET", "secret/data/limited")).status_code for _ in range(times)]
    assert set(codes) <= {404, 429}
    return codes.count(404)


async def test_a_killed_server(node: Node, server: Server) -> None:
    """While PostgreSQL is gone everything is 503 and health answers; when it is back all is as before."""
    token = await node.token("reader", native("secrets/a"))
    assert (await node.call("GET", "secrets/a", token)).status_code == 200
    await server.kill()
    await _refuses(node)
    await until(lambda: _silent(node))
    answer = await node.call("GET", "sys/seal-status")
    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"
    await _refuses(node)
    await server.start_again()
    await _as_before(node, token)
    await ledger_is_good(node, state=True)


async def test_a_server_that_stands_still(node: Node, server: Server) -> None:
    """A PostgreSQL that hangs is as good as none: 503 within a bounded time, and nothing to clean up."""
    token = await node.token("reader", native("secrets/a"))
    assert (await node.call("GET", "secrets/a", token)).status_code == 200
    server.signal(signal.SIGSTOP)
    client = node.client
    client.timeout = 60
    waiting = [asyncio.create_task(node.call("GET", "secrets/a", token)) for _ in range(20)]
    await until(lambda: _silent(node))
    for task in waiting:
        answer = await task
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    await _refuses(node)
    assert await _silent(node)
    server.signal(signal.SIGCONT)
    await _as_before(node, token)
    lost = await entries(server.url, kind="lost")
    assert lost
    assert lost[0]["detail"]["stream"]
    await ledger_is_good(node, state=True)


async def test_a_short_pause(node: Node, server: Server) -> None:
    """Requests that come while PostgreSQL pauses for a moment are answered afterwards."""
    server.signal(signal.SIGSTOP)
    reads = [asyncio.create_task(node.call("GET", "secrets/a")) for _ in range(10)]

    async def all_wait() -> bool:
        core = node.process.core
        return core.ledger.waiting > 0 or any(task.done() for task in reads)

    with contextlib.suppress(TimeoutError):
        await until(all_wait, 2)
    server.signal(signal.SIGCONT)
    for read in reads:
        assert (await read).status_code == 200
    await ledger_is_good(node, state=True)


async def test_writes_under_way_when_the_server_is_killed(node: Node, server: Server) -> None:
    """What was acknowledged is there; what was not is there or not, and the ledger does not claim more."""
    acknowledged: dict[str, int] = {}
    refused: list[str] = []
    killed = asyncio.Event()

    async def writer(number: int) -> None:
        n = 0
        while not (killed.is_set() and refused):
            n += 1
            path = f"w{number}/{n}"
            answer = await node.call("POST", f"secrets/{path}", json={"data": {"n": n}})
            if answer.status_code == 200:
                acknowledged[path] = n
            else:
                assert answer.json()["code"] == "unavailable"
                refused.append(path)
                return

    writers = [asyncio.create_task(writer(number)) for number in range(8)]

    async def enough() -> bool:
        return len(acknowledged) > 100

    await until(enough)
    killed.set()
    await server.kill()
    await asyncio.gather(*writers)
    assert refused
    await server.start_again()
    await until(lambda: _healthy(node))
    for path, n in acknowledged.items():
        answer = await node.call("GET", f"secrets/{path}")
        assert answer.json()["data"]["data"] == {"n": n}
    for path in refused:
        assert (await node.call("GET", f"secrets/{path}")).status_code in {200, 404}
    await ledger_is_good(node, state=True)
    outcomes = await entries(server.url, operation="kv.write", kind="outcome", outcome="done")
    done = {entry["path"].removeprefix("secret/data/") for entry in outcomes}
    there = {row["path"] for row in await sql(server.url, "SELECT path FROM kv_secrets")}
    assert set(acknowledged) <= done <= there
    intents = await entries(server.url, operation="kv.write", kind="intent")
    assert there <= {entry["path"].removeprefix("secret/data/") for entry in intents}


async def test_again_and_again(node: Node, server: Server) -> None:
    """Several outages in a row leave a node that serves and a ledger that verifies."""
    token = await node.token("reader", native("secrets/a"))
    for _ in range(3):
        reads = [asyncio.create_task(node.call("GET", "secrets/a", token)) for _ in range(10)]
        await server.kill()
        for read in reads:
            assert (await read).status_code in {200, 503}
        await server.start_again()
        await _as_before(node, token)
    await ledger_is_good(node, state=True)


async def test_a_node_that_starts_without_a_database(server: Server, tmp_path: Path) -> None:
    """A node started while there is no database says so, and comes up when it is there."""
    await server.kill()
    async with running(node_settings(tmp_path, server.url)) as node:
        health = await node.call("GET", "sys/health")
        assert health.status_code == 503
        assert health.json()["database"] == "silent"
        assert health.json()["sealed"] is True
        assert (await node.call("GET", "sys/seal-status")).json()["code"] == "unavailable"
        init = await node.call("PUT", "sys/init", json={})
        assert (init.status_code, init.json()["code"]) == (503, "unavailable")
        await server.start_again()
        await until(lambda: _uninitialised(node))
        await node.initialise()
        await node.unseal()
        # The feed of changes is not back at once.
        await until(lambda: _healthy(node))


async def _uninitialised(node: Node) -> bool:
    return (await node.call("GET", "sys/health")).status_code == 501


async def test_a_server_killed_while_values_are_sealed_anew(node: Node, server: Server) -> None:
    """Re-encryption stops where PostgreSQL was killed and goes on from there; every value opens meanwhile."""
    core, many = node.process.core, 130
    await asyncio.gather(*(put(node, f"many/{number}", n=number) for number in range(many)))
    assert await rotated(node) == 2
    stale = "SELECT count(*) AS left FROM kv_versions WHERE sealed_under(sealed) < 2"

    # Each value takes its time, so that the end comes in between.
    await sql(
        server.url,
        """CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$""",
    )
    await sql(
        server.url,
        "CREATE TRIGGER slowly BEFORE UPDATE ON kv_versions FOR EACH ROW EXECUTE FUNCTION slowly()",
    )

    async def begun() -> bool:
        return bool((await sql(server.url, stale))[0]["left"] < many)

    working = asyncio.create_task(reencrypt(core))
    await until(begun, patient=False)
    await server.kill()
    with pytest.raises(Unavailable):
        await working
    await server.start_again()
    assert 0 < (await sql(server.url, stale))[0]["left"] < many
    await until(lambda: _healthy(node))
    found = await asyncio.gather(*(got(node, f"many/{number}") for number in range(many)))
    assert found == [{"n": number} for number in range(many)]
    await until(lambda: _sealed_anew(node))
    assert (await sql(server.url, stale))[0]["left"] == 0
    assert await asyncio.gather(*(got(node, f"many/{number}") for number in range(many))) == found
    assert (await node.call("GET", "secrets/a")).json()["data"]["data"] == {"k": "v"}
    await ledger_is_good(node)


async def _sealed_anew(node: Node) -> bool:
    with contextlib.suppress(Unavailable):
        await reencrypt(node.process.core)
        return bool((await node.call("GET", "sys/rotate/status")).json()["data"]["left"] == 0)
    return False
