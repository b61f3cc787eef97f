"""``secrethub engine`` against a real server and a real target, as a shell runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gateway.conftest import Node
from tests.gateway.database_target import CANARY, TargetDatabase
from tests.gateway.databases import CREATION, target
from tests.gateway.shell import Cli

__all__ = ["target"]  # the fixture


def _searched(shown: dict[str, Any]) -> tuple[int, bool]:
    """Return how often a connection is searched for strays, and whether they are removed."""
    details = shown["connection_details"]
    return details["stray_check"], details["remove_strays"]


async def test_users_at_a_database(leasing: Node, target: TargetDatabase, tmp_path: Path) -> None:
    """Connections, roles and static roles are written, shown and deleted; users made; strays looked for."""
    cli = Cli(leasing, tmp_path)
    place = ("--url", target.connection_url, "--username", target.owner, "--allow", "*")
    await cli("engine", "connection", "write", "db", *place, "--password-file", "-", stdin=f"{CANARY}\n")
    shown = await cli.json("engine", "connection", "read", "db")
    assert shown["connection_details"]["username"] == target.owner
    assert CANARY not in str(shown)
    assert _searched(shown) == (3600, False)
    searched = ("--stray-check", "2h", "--remove-strays")
    await cli("engine", "connection", "write", "db", *place, "--password-file", "-", *searched, stdin=CANARY)
    shown = await cli.json("engine", "connection", "read", "db")
    assert _searched(shown) == (7200, True)
    too_often = ("engine", "connection", "write", "db", "--stray-check", "1s", "--keep-strays")
    assert "stray_check" in await cli(*too_often, code=1)
    await cli("engine", "connection", "write", "db", "--stray-check", "0", "--keep-strays")
    shown = await cli.json("engine", "connection", "read", "db")
    assert _searched(shown) == (0, False)
    assert await cli.json("engine", "connection", "list") == ["db"]
    assert (await cli.json("engine", "connection", "health", "db", "--check"))["healthy"] is True
    await cli("engine", "connection", "rotate-root", "db")
    assert not await target.opens(target.owner, CANARY)
    script = tmp_path / "create.sql"
    script.write_text(CREATION[0])
    lives = ("--ttl", "1h", "--max-ttl", "2h")
    role = ("--connection", "db", "--creation", f"@{script}", "--creation", CREATION[1])
    assert await cli("engine", "role", "write", "app", *role, *lives) == "Role app is written.\n"
    assert (await cli.json("engine", "role", "read", "app"))["creation_statements"] == CREATION
    assert await cli.json("engine", "role", "list") == ["app"]
    made = await cli.json("engine", "creds", "app")
    assert await target.opens(made["username"], made["password"])
    assert made["lease_duration"] == 3600
    assert (await cli.json("engine", "strays", "db"))["strays"] == []
    refused = await cli("engine", "connection", "delete", "db", code=1)
    assert "leases" in refused
    user = f"{target.owner}_static"
    await target.sql(f"CREATE ROLE {user} LOGIN")
    try:
        await cli("engine", "static", "write", "s", "--connection", "db", "--username", user, "--every", "1d")
        first = await cli.json("engine", "static", "creds", "s")
        await cli("engine", "static", "rotate", "s")
        second = await cli.json("engine", "static", "creds", "s")
        assert await target.opens(user, second["password"])
        assert not await target.opens(user, first["password"])
        assert await cli("engine", "static", "delete", "s") == "Static role s is deleted.\n"
    finally:
        await target.sql(f"DROP ROLE {user}")
    await cli("lease", "revoke", made["lease_id"], "--wait")
    await cli("engine", "role", "delete", "app")
    assert await cli("engine", "connection", "delete", "db") == "Connection db is deleted.\n"
