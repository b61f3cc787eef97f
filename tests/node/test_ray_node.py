"""What a node insists on before it uses a Ray, and what Ray's processes are given."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.ray_node import RayNode
from cluster.ray_plan import RayPlan, environment
from secrethub.errors import Misconfigured


def plan(**changes: object) -> RayPlan:
    """A head's plan."""
    fields: dict[str, object] = {
        "node": "n1",
        "head": True,
        "host": "127.0.0.1",
        "gcs": "127.0.0.1:6379",
        "temp_dir": "/none",
        "token_file": "/none/token",
        "node_file": "/none/node.json",
        "dashboard_port": 0,
        "agent_port": 0,
        "dashboard_metrics_port": 0,
    }
    return RayPlan(**(fields | changes))  # type: ignore[arg-type]


async def answering(status: str) -> asyncio.Server:
    """An HTTP server that gives everybody the same answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


@pytest.mark.parametrize(("dashboard", "agent"), [("200 OK", "401 No"), ("401 No", "400 Bad Request")])
async def test_a_ray_that_lets_strangers_in_is_refused(tmp_path: Path, dashboard: str, agent: str) -> None:
    """A dashboard or agent that answers a job submission without a token keeps the node from starting."""
    async with await answering(dashboard) as first, await answering(agent) as second:
        ports = [server.sockets[0].getsockname()[1] for server in (first, second)]
        node = RayNode(plan(dashboard_port=ports[0], agent_port=ports[1]), tmp_path)
        with pytest.raises(Misconfigured, match="without a token"):
            await node._check_closed()


async def test_a_ray_that_asks_for_its_token_is_accepted(tmp_path: Path) -> None:
    """A Ray whose doors both refuse strangers is used."""
    async with await answering("401 Unauthorized") as first, await answering("403 Forbidden") as second:
        ports = [server.sockets[0].getsockname()[1] for server in (first, second)]
        await RayNode(plan(dashboard_port=ports[0], agent_port=ports[1]), tmp_path)._check_closed()


def test_ray_s_environment_is_made_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the shell, Ray's own settings included, do not reach Ray's processes."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("DATABASE_URL", "postgresql://canary@db/x")
    made = environment(plan(redis_address="rediss://redis:6379", redis_password="canary"))
    assert made["RAY_AUTH_MODE"] == "token"
    assert made["TMPDIR"] == "/none"
    assert "RAY_ADDRESS" not in made
    assert not [name for name, value in made.items() if "canary" in value]
