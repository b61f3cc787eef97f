"""Conditions and placeholders for connected agents: decided by the connection, told when they change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import native
from tests.gateway.test_agent_gateway import House, house, wire

__all__ = ["house"]  # the fixture


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"source_ip": ["127.0.0.0/8"]}, True),
        ({"source_ip": ["10.0.0.0/8"]}, False),
        ({"dates": {"until": "2020-01-01"}}, False),
        ({"wrapping": True}, False),
        ({"max_ttl": "10000h"}, False),
    ],
)
async def test_conditions(house: House, conditions: dict[str, Any], holds: bool) -> None:
    """A connected agent reads and watches what the conditions let it, from the address it connects from."""
    await house.put("web/db", password="one")
    host = await house.enrol()
    document = native("secrets/web/**")
    async with house.agent(host) as agent:
        assert isinstance(await agent.read("secrets/web/db"), wire.Result)
        document["statements"][0]["conditions"] = conditions
        await house.hub.ask("write", "sys/policies/acl/web", {"policy": document})
        await agent.hear(wire.PolicyChanged)
        assert isinstance(await agent.read("secrets/web/db"), wire.Result) is holds
        watching = await agent.watch("secrets/web/db")
        assert (watching.refused == ()) is holds


async def test_a_folder_of_its_own(house: House) -> None:
    """A connected agent reads and watches its own folder, not another's, and hears when the rule goes."""
    host, other = await house.enrol("web-1"), await house.enrol("web-2")
    for one in (host, other):
        await house.put(f"own/{one.agent_id}/db", password="one")
    rule = native("secrets/own/{{agent.id}}/**")
    await house.hub.ask("write", "sys/policies/acl/web", {"policy": rule})
    async with house.agent(host) as agent, house.agent(other) as neighbour:
        for who, mine, theirs in ((agent, host, other), (neighbour, other, host)):
            assert isinstance(await who.read(f"secrets/own/{mine.agent_id}/db"), wire.Result)
            assert isinstance(await who.read(f"secrets/own/{theirs.agent_id}/db"), wire.Error)
            assert isinstance(await who.read("secrets/own/{{agent.id}}/db"), wire.Error)
            await who.watch(f"secrets/own/{mine.agent_id}/db")
        await house.hub.ask("write", "sys/policies/acl/web", {"policy": native("secrets/nothing")})
        for who, mine in ((agent, host), (neighbour, other)):
            await who.hear(wire.PolicyChanged)
            assert isinstance(await who.read(f"secrets/own/{mine.agent_id}/db"), wire.Error)
