"""Rotations wait for the agents that use a secret: until its new value is in their files, or a deadline."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.gateway.behind import entries, sql, until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok, put
from tests.gateway.rotation_hosts import enrolled_host, watching
from tests.gateway.rotations import configured, ended, fields, rotated

PATH = "secrets/app/db"


async def test_agents_are_waited_for(node: Node, tmp_path: Path) -> None:
    """The old value ends when file and program have the new one; who is away is waited for."""
    await put(node, "app/db", {"value": "first"})
    told = tmp_path / "told"
    reload = f'reload = {{ command = ["cp", "{tmp_path}/app.env", "{told}"] }}'
    async with enrolled_host(node, tmp_path, 'value={{ secret("secrets/app/db").value }}', reload) as host:
        await host.holds("value=first")
        await watching(node)
        await configured(node, PATH, confirm_within="1h")
        assert (await ok(node, "POST", f"sys/rotation/run/{PATH}", {"dry_run": True}))["agents"] == 1
        past = await rotated(node, PATH)
        assert (past["outcome"], past["missing"]) == ("done", 0)
        value = (await fields(node, PATH))["value"]
        # No waiting here: that is what the confirmation was about.
        assert host.file.read_text() == told.read_text() == f"value={value}"
        await host.kill()
        begun = await ok(node, "POST", f"sys/rotation/run/{PATH}")

        async def step() -> str | None:
            run = (await ok(node, "GET", f"sys/rotation/config/{PATH}"))["run"]
            return None if run is None or run["step"] != "confirm" else str(run["step"])

        assert await until(step) == "confirm"
        await asyncio.sleep(0.5)
        assert await step() == "confirm"
        await host.start()
        assert (await ended(node, begun["run"], PATH))["outcome"] == "done"
        assert host.file.read_text() == f"value={(await fields(node, PATH))['value']}"


async def test_a_deadline_ends_the_waiting(node: Node, tmp_path: Path) -> None:
    """An agent that is away is named; the run ends without it, or gives the old value back if so wanted."""
    await put(node, "app/db", {"value": "first"})
    async with enrolled_host(node, tmp_path, 'value={{ secret("secrets/app/db").value }}') as host:
        await host.holds("value=first")
        await watching(node)
        await host.kill()
        await configured(node, PATH, confirm_within="1s")
        past = await rotated(node, PATH)
        assert (past["outcome"], past["missing"]) == ("unconfirmed", 1)
        before = (await fields(node, PATH))["value"]
        await configured(node, PATH, confirm_within="1s", late="undo")
        past = await rotated(node, PATH)
        assert (past["outcome"], past["missing"]) == ("undone", 1)
        assert past["reason"] == "not confirmed in time"
        assert (await fields(node, PATH))["value"] == before
        [agent] = await sql(node.settings.database_url, "SELECT agent FROM agent_watches")
        late = (await entries(node.settings.database_url, operation="rotation.confirm"))[-1]
        assert (late["outcome"], late["detail"]["missing"]) == ("late", [agent["agent"]])
        await ok(node, "POST", f"agents/{agent['agent']}/revoke")
        assert (await rotated(node, PATH))["outcome"] == "done"
