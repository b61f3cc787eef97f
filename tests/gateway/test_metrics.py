"""Metrics: one port a node, every process in it, and nothing in them that says who asked for what."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from serve.timing import Timing
from serve.wiring import Process
from tests.gateway.behind import until
from tests.gateway.conftest import NOBODY, Node, native
from tests.gateway.raw_http import GUARD


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


async def scraped(node: Node) -> httpx2.Response:
    assert node.settings.metrics is not None
    async with httpx2.AsyncClient(verify=NOBODY) as client:
        return await client.get(f"http://127.0.0.1:{node.settings.metrics.port}/metrics")


async def test_the_port_tells_what_happened(node: Node) -> None:
    """Requests by operation and outcome, latency, seal, agents and ledger are told in Prometheus' format."""
    await node.call("POST", "secrets/a", json={"data": {}})
    for _ in range(3):
        await node.call("GET", "secrets/a")
    await node.call("GET", "secrets/a", "hvs.unknown")
    answer = await scraped(node)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = families(answer.text)
    counted = {
        (sample.labels["operation"], sample.labels["outcome"]): sample.value
        for sample in found["secrethub_requests"].samples
        if sample.name == "secrethub_requests_total"
    }
    assert counted["kv.read", "done"] == 3
    assert counted["kv.write", "done"] == 1
    assert sum(n for (_, outcome), n in counted.items() if outcome == "permission_denied") == 1
    assert found["secrethub_request_seconds"].type == "histogram"
    for name in (
        "secrethub_unsealed",
        "secrethub_agents_connected",
        "secrethub_audit_commit_seconds",
        "secrethub_audit_waiting",
        "secrethub_audit_entries_written",
        "secrethub_audit_checkpoint",
        "secrethub_audit_checkpoint_timestamp_seconds",
        "secrethub_audit_checkpoint_age_seconds",
        "secrethub_throttled",
        "secrethub_integrity_failures",
    ):
        assert name in found, name
    assert [sample.value for sample in found["secrethub_unsealed"].samples] == [1]
    assert all(family.documentation for family in found.values() if not family.name.endswith("_created"))


async def test_the_lag_of_the_ledger_is_told(node: Node) -> None:
    """Entries that cannot be written yet are counted; those without a checkpoint say for how long."""

    async def told(name: str) -> float:
        (sample,) = families((await scraped(node)).text)[f"secrethub_audit_{name}"].samples
        return float(sample.value)

    async def waits() -> bool:
        return await told("waiting") > 0

    async def written() -> bool:
        return await told("waiting") == 0

    async def lags() -> bool:
        return await told("checkpoint_age_seconds") > 1

    async def keeps_up() -> bool:
        return await told("checkpoint_age_seconds") == 0

    await node.call("POST", "secrets/a", json={"data": {}})
    await until(keeps_up)
    async with held(node.settings.database_url, "LOCK TABLE audit_entries IN EXCLUSIVE MODE"):
        reading = asyncio.create_task(node.call("GET", "secrets/a"))
        await until(waits)
    assert (await reading).status_code == 200
    await until(written)
    async with held(node.settings.database_url, "LOCK TABLE audit_checkpoints IN EXCLUSIVE MODE"):
        assert (await node.call("GET", "secrets/a")).status_code == 200
        await until(lags)
    await until(keeps_up)


@contextlib.asynccontextmanager
async def held(url: str, statement: str) -> AsyncIterator[None]:
    """Hold a lock of the database."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


async def test_nothing_says_who_or_what(node: Node) -> None:
    """Tokens, names, paths and addresses are in no label, whoever makes them up."""
    canary = "canary7f3a"
    token = await node.token(canary, native(f"secrets/{canary}/**"), display_name=canary)
    await node.call("POST", f"secrets/{canary}/a", json={"data": {canary: canary}})
    await node.call("GET", f"secrets/{canary}/a", token)
    await node.call("GET", f"{canary}/unknown", token)
    await node.call("POST", f"sys/{canary}", canary, json={canary: canary})
    await node.call("POST", f"auth/approle/role/{canary}", json={})
    await node.call("PROPFIND", canary)
    for path in (None, "sys/metrics"):
        text = (await scraped(node)).text if path is None else (await node.call("GET", path)).text
        assert canary not in text
        assert token not in text
        assert node.root not in text
        assert "127.0.0.1" not in text
    operations = {
        sample.labels["operation"]
        for sample in families(text)["secrethub_requests"].samples
        if "operation" in sample.labels
    }
    declared = {
        operation.name
        for engine in ("system", "kv", "token", "approle", "pki", "agents")
        for operation in node.process.core.mounts._engines[engine].operations()
    }
    assert operations <= declared | {"unknown", "unread"}


async def test_the_api_tells_them_too(sealed_node: Node) -> None:
    """GET /v1/sys/metrics needs neither token nor keys."""
    answer = await sealed_node.call("GET", "sys/metrics", "")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    found = families(answer.text)
    assert [sample.value for sample in found["secrethub_unsealed"].samples] == [0]
    assert (await sealed_node.call("POST", "sys/metrics", "")).status_code == 503


async def test_processes_are_merged_and_the_port_is_taken_over(node: Node) -> None:
    """Two processes of a node share its ports; when the owner of the metrics goes, the other takes over."""
    quick = Timing(metrics_port=0.05)
    second = Process(node.settings, node.tree.handles, ("gateway",), "second", timing=quick)
    await second.start()
    try:
        async with asyncio.timeout(GUARD):
            await second.core.opened.wait()
        found = families((await scraped(node)).text)
        names = {sample.labels["process"] for sample in found["secrethub_unsealed"].samples}
        assert {name.partition("-")[0] for name in names} == {"single", "second"}
        await node.process.stop()
        async with asyncio.timeout(GUARD):
            while True:
                try:
                    answer = await scraped(node)
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    break
        found = families(answer.text)
        names = {sample.labels["process"] for sample in found["secrethub_unsealed"].samples}
        assert {name.partition("-")[0] for name in names} == {"second"}
        assert (await node.call("GET", "auth/token/lookup-self")).status_code == 200
    finally:
        await second.stop()


async def test_a_killed_process_is_left_out(node: Node) -> None:
    """The socket of a process that is gone is cleared away."""
    gone = Path(node.settings.run_dir) / "metrics" / "gone-1.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(gone))
    assert gone.exists()
    assert "gone-1" not in (await scraped(node)).text
    assert not gone.exists()


async def test_the_port_serves_nothing_else(node: Node) -> None:
    """Other paths, verbs and rubbish get a short no."""
    assert node.settings.metrics is not None
    for data, status in (
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /v1/sys/seal-status HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"400"),
        (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", b"200"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.settings.metrics.port)
        writer.write(data)
        async with asyncio.timeout(GUARD):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 " + status), data
        assert b"cache-control: no-store" in answer


async def test_head_tells_that_metrics_are_there(node: Node) -> None:
    """HEAD answers as GET does, without the text."""
    assert node.settings.metrics is not None
    async with httpx2.AsyncClient(verify=NOBODY) as client:
        answer = await client.head(f"http://127.0.0.1:{node.settings.metrics.port}/metrics")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 100
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("timing", [Timing(metrics_answer=0.2)])
async def test_the_port_waits_for_nobody(node: Node) -> None:
    """Silence and endless heads end the connection, and others are served meanwhile."""
    assert node.settings.metrics is not None
    for data in (b"", b"GET /met", b"a" * 200_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.settings.metrics.port)
        writer.write(data)
        async with asyncio.timeout(GUARD):
            assert (await scraped(node)).status_code == 200
            with contextlib.suppress(ConnectionError):
                assert b" 200 " not in await reader.read()
        writer.close()


async def test_asking_costs_little(node: Node) -> None:
    """Whoever asks at the same time shares one merge, which has everything up to the question."""
    metrics = node.process._metrics
    for number in range(3):
        await node.call("GET", f"secrets/none{number}")
        texts = await asyncio.gather(*(metrics.text() for _ in range(50)))
        assert {id(text) for text in texts} == {id(texts[0])}
        reads = [
            sample.value
            for sample in families(texts[0].decode())["secrethub_requests"].samples
            if sample.name == "secrethub_requests_total" and sample.labels["operation"] == "kv.read"
        ]
        assert sum(reads) == number + 1
