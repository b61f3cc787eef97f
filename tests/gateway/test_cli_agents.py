"""``secrethub agent`` against a real server and a real agent, as a shell runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gateway.behind import until
from tests.gateway.kv import put
from tests.gateway.rotation_hosts import enrolled_host
from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture

_TEMPLATE = '{{ secret("secrets/app/db").value }}'


async def test_an_agent_is_revoked_and_comes_back_by_approval(cli: Cli, tmp_path: Path) -> None:
    """A revoked agent is nobody until its name is approved for a role, and then enrols with another key."""
    node = cli.node
    await put(node, "app/db", {"value": "first"})
    async with enrolled_host(node, tmp_path / "one", _TEMPLATE) as host:
        await host.holds("first")
        (before,) = await cli.json("agent", "list")
        agent = before["agent_id"]
        assert await cli("agent", "revoke", agent) == f"Agent {agent} is revoked.\n"
        log = host.folder / "agent.log"

        async def ended() -> bool:
            return "revoked" in log.read_text()

        await until(ended)
    assert (await cli.json("agent", "show", agent))["status"] == "revoked"
    assert "not found" in await cli("agent", "approve", "nobody", code=1)
    assert "no such AppRole role" in await cli("agent", "approve", agent, "--role", "nowhere", code=1)
    approved = json.loads(await cli("agent", "approve", agent, "--role", "host", "--format", "json"))
    assert approved["role"] == "host"
    await put(node, "app/db", {"value": "second"})
    async with enrolled_host(node, tmp_path / "two", _TEMPLATE) as host:
        await host.holds("second")
    (after,) = await cli.json("agent", "list")
    assert (after["agent_id"], after["status"]) == (agent, "active")
