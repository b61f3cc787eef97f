"""``secrethub quota`` against a real server, as a shell runs it."""

from __future__ import annotations

from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture


async def test_quotas(cli: Cli) -> None:
    """A rate limit is written, changed, shown, listed and lifted; paths are exempt."""
    said = await cli("quota", "write", "store", "--rate", "100", "--path", "secret", "--group-by", "none")
    assert said == "Quota store is written and in force.\n"
    await cli("quota", "write", "store", "--interval", "1m")
    shown = await cli.json("quota", "read", "store")
    assert (shown["rate"], shown["path"], shown["interval"]) == (100, "secret/", 60)
    assert await cli.json("quota", "list") == ["store"]
    await cli("quota", "exempt", "secret/data/a*", "pki/ca")
    assert await cli.json("quota", "exempt") == ["pki/ca", "secret/data/a*"]
    await cli("quota", "exempt", "--none")
    assert await cli.json("quota", "exempt") == []
    assert await cli("quota", "delete", "store") == "Quota store is deleted.\n"
    assert "rate is required" in await cli("quota", "write", "none", code=1)


async def test_what_is_refused_says_what_to_do(cli: Cli) -> None:
    """Who is refused by a quota is told so, and that it passes."""
    await cli("quota", "write", "store", "--rate", "1", "--interval", "720h", "--path", "secret")
    await cli("kv", "list")
    assert "rate limit exceeded (try again later)" in await cli("kv", "list", code=1)
