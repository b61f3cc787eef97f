"""``secrethub auth`` and ``secrethub mount`` against a real server, as a shell runs them."""

from __future__ import annotations

from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture


async def test_auth_methods(cli: Cli) -> None:
    """An auth method is enabled, listed, tuned and disabled; that there was none is said."""
    said = await cli("auth", "enable", "approle", "--path", "team/machines", "--max-ttl", "2h")
    assert said == "The auth method approle is enabled at auth/team/machines/.\n"
    shown = (await cli.json("auth", "list"))["team/machines/"]
    assert (shown["type"], shown["config"]["max_lease_ttl"]) == ("approle", 7200)
    assert "team/machines/" in await cli("auth", "list")
    assert await cli("auth", "tune", "auth/team/machines/", "--default-ttl", "5m") != ""
    tuned = await cli.json("auth", "tune", "team/machines")
    assert (tuned["default_lease_ttl"], tuned["max_lease_ttl"]) == (300, 7200)
    assert await cli("auth", "disable", "team/machines") == "Auth method at auth/team/machines/ is deleted.\n"
    assert "team/machines/" not in await cli.json("auth", "list")
    assert await cli("auth", "disable", "team/machines") == ""
    assert "approle" in await cli("auth", "enable", "ldap", code=1)
    assert "cannot be disabled" in await cli("auth", "disable", "token", code=1)


async def test_secrets_engines(cli: Cli) -> None:
    """A store is mounted, listed, tuned and removed."""
    assert await cli("mount", "enable", "kv", "--path", "team", "--version", "1") != ""
    shown = (await cli.json("mount", "list"))["team/"]
    assert (shown["type"], shown["options"]) == ("kv", {"version": "1"})
    await cli("mount", "tune", "team", "--description", "ours", "--max-ttl", "1h")
    tuned = await cli.json("mount", "tune", "team")
    assert (tuned["description"], tuned["max_lease_ttl"]) == ("ours", 3600)
    assert await cli("mount", "disable", "team") == "Secrets engine at team/ is deleted.\n"
    assert "already in use" in await cli("mount", "enable", "kv", "--path", "secret", code=1)
    assert await cli("mount", "enable", "kv") == "The secrets engine kv is mounted at kv/.\n"
    assert (await cli.json("mount", "list"))["kv/"]["options"] == {"version": "2"}
    for kind in ("database", "aws"):
        assert f"{kind} is mounted" in await cli("mount", "enable", kind, "--path", f"of/{kind}")
    assert "has no options" in await cli("mount", "enable", "aws", "--version", "2", code=1)
    assert "one of kv, kv-v1, kv-v2, aws, database" in await cli("mount", "enable", "mysql", code=1)
