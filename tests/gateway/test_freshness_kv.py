"""Secrets under load from two processes: no write is lost, and nobody reads the past."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.gateway.behind import ledger_is_good, sql
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.pair import beside, second
from tests.gateway.second_process import Second
from tests.postgres.socket_proxy import proxied

__all__ = ["second"]  # the fixture


@dataclass
class History:
    """What clients saw of one secret, on one monotonic clock."""

    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    """(instant of the acknowledgement, version)"""
    seen: list[tuple[float, float, int]] = field(default_factory=list)
    """(instant of the request, instant of the answer, version)"""
    values: dict[int, str] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    def check(self) -> None:
        """Check that every read saw at least what was acknowledged, or seen, before it began."""
        done = sorted([*self.acknowledged, *((answered, version) for _, answered, version in self.seen)])
        for asked, _, version in self.seen:
            known = max((v for instant, v in done if instant < asked), default=0)
            assert version >= known, f"version {version} was read after {known} was known"


async def write(history: History, process: Node | Second, token: str, path: str, value: str) -> None:
    """Write once and remember what was acknowledged."""
    answer = await process.call("POST", path, token, json={"data": {"value": value}})
    if answer.status_code == 200:
        version = answer.json()["data"]["version"]
        assert version not in history.values, "two writes were given one version"
        history.values[version] = value
        history.acknowledged.append((time.monotonic(), version))
    else:
        history.refused.append(answer.status_code)


async def read(history: History, process: Node | Second, token: str, path: str) -> None:
    """Read once and remember what was seen."""
    asked = time.monotonic()
    answer = await process.call("GET", path, token)
    if answer.status_code == 200:
        version = answer.json()["data"]["metadata"]["version"]
        history.seen.append((asked, time.monotonic(), version))
        known = history.values.get(version)
        assert known is None or answer.json()["data"]["data"] == {"value": known}
    else:
        history.refused.append(answer.status_code)


async def test_reads_never_go_back(node: Node, second: Second) -> None:
    """With writers and readers at both processes, each read sees everything acknowledged before it."""
    histories = {f"secrets/hot/{n}": History() for n in range(3)}
    await asyncio.gather(*(write(h, node, node.root, path, "first") for path, h in histories.items()))

    async def writer(process: Node | Second, path: str, name: str) -> None:
        for n in range(25):
            await write(histories[path], process, node.root, path, f"{name}-{n}")

    async def reader(process: Node | Second, path: str) -> None:
        for _ in range(60):
            await read(histories[path], process, node.root, path)

    both: tuple[Node | Second, ...] = (node, second)
    await asyncio.gather(
        *(writer(p, path, f"w{i}") for i, p in enumerate(both) for path in histories),
        *(reader(p, path) for p in both * 2 for path in histories),
    )
    for path, history in histories.items():
        history.check()
        assert history.refused == []
        assert len(history.acknowledged) == 51
        newest = (await second.call("GET", path, node.root)).json()["data"]
        assert newest["metadata"]["version"] == 51
        assert newest["data"] == {"value": history.values[51]}


async def test_a_hot_secret_is_read_however_often_it_is_written(node: Node, second: Second) -> None:
    """Reads of a secret, and lists above it, are answered while it is written without a pause."""
    history = History()
    path = "secrets/hot/one"
    await write(history, node, node.root, path, "first")
    stop = asyncio.Event()

    async def writer(process: Node | Second, name: str) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            await write(history, process, node.root, path, f"{name}-{n}")

    writers = [asyncio.create_task(writer(p, f"w{i}")) for i, p in enumerate((node, second) * 3)]
    for _ in range(100):
        await read(history, node, node.root, path)
        assert (await node.call("LIST", "secrets/hot")).status_code == 200
    stop.set()
    await asyncio.gather(*writers)
    history.check()
    assert history.refused == []


async def test_a_slow_process_writes_what_others_write_without_a_pause(
    database_url: str, tmp_path: Path
) -> None:
    """Whoever is far from the database loses every race, and is not turned away for that."""
    history = History()
    path = "secrets/hot/one"
    stop = asyncio.Event()

    async def writer(process: Second, root: str, name: str) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            await write(history, process, root, path, f"{name}-{n}")

    async with (
        proxied(database_url) as (proxy, through),
        running(node_settings(tmp_path, through)) as node,
    ):
        await node.initialise()
        await node.unseal()
        async with beside(node, tmp_path, database_url) as fast:
            proxy.delay = 0.02
            writers = [asyncio.create_task(writer(fast, node.root, f"fast{i}")) for i in range(3)]
            for n in range(5):
                await write(history, node, node.root, path, f"slow-{n}")
            stop.set()
            await asyncio.gather(*writers)
            await ledger_is_good(node)
    assert history.refused == []
    assert {f"slow-{n}" for n in range(5)} <= set(history.values.values())


async def test_many_writers_of_one_secret_all_succeed(node: Node, second: Second) -> None:
    """Of many concurrent writes to one path none is lost and none is turned away."""
    history = History()
    await asyncio.gather(
        *(write(history, (node, second)[n % 2], node.root, "secrets/one", str(n)) for n in range(64))
    )
    assert history.refused == []
    assert sorted(history.values) == list(range(1, 65))
    assert set(history.values.values()) == {str(n) for n in range(64)}


async def test_counters_by_check_and_set_lose_nothing(node: Node, second: Second) -> None:
    """Read-modify-write with check-and-set from both processes counts every increment."""
    await node.call("POST", "secrets/count", json={"data": {"n": 0}})

    async def increment(process: Node | Second) -> int:
        tries = 0
        while True:
            tries += 1
            now = (await process.call("GET", "secrets/count", node.root)).json()["data"]
            body = {"data": {"n": now["data"]["n"] + 1}, "options": {"cas": now["metadata"]["version"]}}
            answer = await process.call("POST", "secrets/count", node.root, json=body)
            if answer.status_code == 200:
                return tries
            assert answer.json()["code"] == "cas_mismatch"

    async def worker(process: Node | Second) -> None:
        for _ in range(8):
            await increment(process)

    await asyncio.gather(*(worker(p) for p in (node, second) * 2))
    final = (await node.call("GET", "secrets/count")).json()["data"]
    assert final["data"] == {"n": 32}
    assert final["metadata"]["version"] == 33


async def test_acknowledged_writes_survive_a_killed_process(node: Node, second: Second) -> None:
    """What a process acknowledged before SIGKILL is there, and the ledger of the dead process verifies."""
    acknowledged: dict[str, int] = {}
    attempted: set[str] = set()

    async def writer(number: int) -> None:
        n = 0
        while True:
            n += 1
            path = f"secrets/w{number}/{n}"
            attempted.add(path)
            try:
                answer = await second.call("POST", path, node.root, json={"data": {"n": n}})
            except httpx2.TransportError:
                return
            assert answer.status_code == 200
            acknowledged[path] = n
            if len(acknowledged) == 200:
                second.kill()

    await asyncio.gather(*(writer(number) for number in range(8)))
    assert len(acknowledged) >= 200
    for path, n in acknowledged.items():
        found = (await node.call("GET", path)).json()["data"]
        assert found["data"] == {"n": n}
    url = node.settings.database_url
    there = await sql(url, "SELECT path FROM kv_secrets WHERE path LIKE 'w%'")
    assert {f"secrets/{row['path']}" for row in there} <= attempted
    # Every acknowledged write has its outcome; what was under way has an intent.
    intents = await sql(
        url, "SELECT path FROM audit_entries WHERE operation = 'kv.write' AND kind = 'intent'"
    )
    outcomes = await sql(
        url,
        "SELECT path FROM audit_entries WHERE operation = 'kv.write' AND outcome = 'done'",
    )
    assert {f"secret/data/{row['path']}" for row in there} <= {row["path"] for row in intents}
    known = {path.replace("secrets/", "secret/data/", 1) for path in acknowledged}
    assert known <= {row["path"] for row in outcomes}
    await ledger_is_good(node)


async def test_metadata_while_versions_go(node: Node) -> None:
    """What exists of a secret can be read while each write removes its oldest version."""
    path = "secret/data/short"
    for n in range(12):
        await node.call("POST", path, json={"data": {"n": n}})
    writing = True

    async def writer() -> None:
        for n in range(40):
            answer = await node.call("POST", path, json={"data": {"n": n}})
            assert answer.status_code == 200

    async def reader() -> int:
        read = 0
        while writing:
            answer = await node.call("GET", "secret/metadata/short")
            assert answer.status_code == 200, answer.text
            versions = sorted(map(int, answer.json()["data"]["versions"]))
            newest = answer.json()["data"]["current_version"]
            assert versions == list(range(newest - 9, newest + 1))
            read += 1
        return read

    readers = [asyncio.create_task(reader()) for _ in range(8)]
    await asyncio.gather(*(writer() for _ in range(4)))
    writing = False
    assert all(await asyncio.gather(*readers))
