"""Bindings and connected agents: told at once, decided anew; and the commands."""

from __future__ import annotations

from tests.gateway.conftest import Node, native
from tests.gateway.shell import Cli, cli
from tests.gateway.test_agent_gateway import House, house, wire

__all__ = ["cli", "house"]  # fixtures


async def test_a_connected_agent_is_told(house: House) -> None:
    """A policy bound to a connected agent, or to its role, lets it read, and is told in both directions."""
    await house.hub.ask("write", "sys/policies/acl/other", {"policy": native("secrets/other/**")})
    await house.put("other/db", password="one")
    host = await house.enrol()
    path = "sys/policies/bindings/other"
    async with house.agent(host) as agent:
        await agent.watch("secrets/web/db")
        for subject in ({"agent": host.agent_id}, {"role": "web"}):
            assert isinstance(await agent.read("secrets/other/db"), wire.Error)
            await house.hub.ask("write", path, subject)
            await agent.hear(wire.PolicyChanged)
            assert isinstance(await agent.read("secrets/other/db"), wire.Result)
            # What is bound is rested on as well: its change is told, too.
            await house.hub.ask("write", "sys/policies/acl/other", {"policy": native("secrets/other/db")})
            await agent.hear(wire.PolicyChanged)
            await house.hub.ask("write", f"{path}/remove", subject)
            await agent.hear(wire.PolicyChanged)


async def test_commands(node: Node, cli: Cli) -> None:
    """Policies are bound, shown and taken away by role and by accessor."""
    for name in ("a", "b"):
        await node.call("PUT", f"sys/policies/acl/{name}", json={"policy": native("secrets/x")})
    await node.call("POST", "auth/approle/role/web", json={})
    made = (await node.call("POST", "auth/token/create", json={"policies": ["default"]})).json()["auth"]
    assert await cli.json("policy", "bindings") == []
    assert "a, b are bound" in await cli("policy", "bind", "a", "b", "--role", "web")
    await cli("policy", "bind", "a", "--accessor", made["accessor"])
    assert await cli.json("policy", "bindings") == ["a", "b"]
    assert await cli.json("policy", "bindings", "--role", "web") == ["a", "b"]
    shown = await cli.json("policy", "bindings", "a")
    assert [(one["kind"], one.get("accessor")) for one in shown] == [
        ("approle", None),
        ("token", made["accessor"]),
    ]
    assert "web" in await cli("policy", "bindings", "b")
    assert "b is no longer bound" in await cli("policy", "unbind", "b", "--role", "web")
    assert await cli.json("policy", "bindings", "--role", "web") == ["a"]
    for words in (
        ("bind", "a"),
        ("bind", "a", "--role", "x", "--agent", "y"),
        ("bindings", "a", "--role", "x"),
    ):
        await cli("policy", *words, code=2)
    assert "no policy is named nobody" in await cli("policy", "bind", "nobody", "--role", "web", code=1)
