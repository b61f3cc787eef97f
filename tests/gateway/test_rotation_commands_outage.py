"""Commands on hosts while PostgreSQL is away: nothing is forgotten, and nothing is done under two names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.behind import ledger_is_good, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.kv import ok
from tests.gateway.rotations import ended, fields
from tests.gateway.test_outage import Server, folder, server
from tests.gateway.test_rotation_commands import PATH, CommandHost, configure, host

__all__ = ["folder", "host", "server"]  # the fixtures


@pytest.fixture
async def node(server: Server, tmp_path: Path) -> AsyncIterator[Node]:
    """A node on a PostgreSQL that may be killed."""
    async with running(node_settings(tmp_path, server.url)) as started:
        await started.initialise()
        await started.unseal()
        yield started


@pytest.mark.parametrize("step", ["create", "verify", "retire"])
async def test_postgresql_killed_during_an_order(
    node: Node, server: Server, host: CommandHost, step: str
) -> None:
    """The answer is told once it can be; a step that is called again has the same id and the same values."""
    await configure(node)
    begun = await ok(node, "POST", f"sys/rotation/run/{PATH}")

    async def called() -> bool:
        return step in host.steps()

    await until(called)
    await server.kill()
    await asyncio.sleep(0.5)  # the command has ended by now, and nobody can be told
    await server.start_again()

    async def answers() -> bool:
        return (await node.call("GET", f"sys/rotation/config/{PATH}")).status_code == 200

    await until(answers)
    assert (await ended(node, begun["run"], PATH))["outcome"] == "done"
    calls = host.called()
    assert len({call["id"] for call in calls}) == 1
    for name in ("create", "verify", "retire"):
        same = [call for call in calls if call["step"] == name]
        assert same
        assert all(call == same[0] for call in same)
    assert (await fields(node, PATH))["value"] == calls[0]["value"]
    await ledger_is_good(node)
