"""What agents say of their files is written down and shown."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.behind import refusing, until
from tests.gateway.kv import ok, put, status
from tests.gateway.rotation_hosts import enrolled_host
from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture


async def test_failing_files_are_named(cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be made is shown with the reason until it can, whatever the database did."""
    node = cli.node
    await put(node, "app/db", {"value": "canary"})
    other = tmp_path / "other.env"
    more = "\n".join(
        (
            "[[template]]",
            """content = '{{ secret("secrets/app/later").value }}'""",
            f"destination = {json.dumps(str(other))}",
        )
    )

    async def refused() -> bool:
        return "what agents use could not be written down yet" in caplog.text

    async def report(failing: int) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            agents = await ok(node, "LIST", "agents") if await status(node, "LIST", "agents") == 200 else {}
            for agent_id in agents.get("keys", ()):
                found: dict[str, Any] = await ok(node, "GET", f"agents/{agent_id}")
                if found["report"] is not None and found["report"]["failing"] == failing:
                    return found
            return None

        return await until(look)

    template = '{{ secret("secrets/app/db").value }}'
    async with contextlib.AsyncExitStack() as stack:
        async with refusing(node.settings.database_url, "INSERT ON agent_reports"):
            await stack.enter_async_context(enrolled_host(node, tmp_path, template, more))
            await until(refused)
        found = await report(1)
        assert found["report"]["files"] == 2
        [failure] = found["report"]["failures"]
        assert failure["destination"] == str(other)
        assert "secrets/app/later" in failure["error"]
        assert "canary" not in str(found)
        shown = await cli("agent", "show", found["agent_id"])
        assert str(other) in shown
        assert failure["error"] in shown
        await put(node, "app/later", {"value": "canary"})
        healed = await report(0)
        assert (healed["report"]["failures"], healed["report"]["files"]) == ([], 2)
        assert healed["report"]["since"] > found["report"]["since"]
        assert str(other) not in await cli("agent", "show", found["agent_id"])
