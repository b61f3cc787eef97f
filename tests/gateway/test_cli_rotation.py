"""``secrethub rotation`` against a real server, as a shell runs it."""

from __future__ import annotations

from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture


async def test_rotation(cli: Cli) -> None:
    """A rotation is written, rehearsed, run, paused, shown and deleted."""
    said = await cli("rotation", "write", "secrets/app", "length=40", "field=key")
    assert said == "secret/app is rotated: when somebody asks for it.\n"
    assert (await cli.json("rotation", "run", "secrets/app", "--dry-run"))["fields"] == ["key"]
    done = await cli.json("rotation", "run", "secrets/app", "--wait")
    assert (done["outcome"], done["new_version"]) == ("done", 1)
    assert [run["run"] for run in await cli.json("rotation", "history", "secrets/app")] == [1]
    assert "done" in await cli("rotation", "history", "secrets/app")
    await cli("rotation", "write", "secrets/app", "--every", "720h", "--jitter", "1h")
    await cli("rotation", "pause", "secrets/app")
    assert (await cli.json("rotation", "read", "secrets/app"))["next_at"] is None
    await cli("rotation", "resume", "secrets/app")
    assert (await cli.json("rotation", "read", "secrets/app"))["next_at"] is not None
    assert await cli.json("rotation", "list") == ["secret/app"]
    assert await cli("rotation", "delete", "secrets/app") == "Rotation of secrets/app is deleted.\n"
    assert await cli.json("rotation", "list") == []
    assert "not found" in await cli("rotation", "run", "secrets/app", code=1)
    wrong = await cli("rotation", "write", "secrets/app", "--cron", "61 * * * *", code=1)
    assert "five fields" in wrong
