"""Conditions of policies that are in force for agents."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from authority_core import Running
from enrolled_hosts import certificate_of, host_of, shared_hub

from secrethub.errors import PermissionDenied
from secrethub.operations.call import AgentCertificate
from tests.gateway.conftest import SHARING, native
from tests.gateway.test_conditions import when

__all__ = ["shared_hub"]  # the fixture


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(shared_hub: Running) -> AgentCertificate:
    """An agent that was enrolled while it was allowed."""
    await shared_hub.ask("write", "secret/data/else/db", {"data": {"k": 1}})
    return certificate_of(await (await host_of(shared_hub, "web")).enroll())


@SHARING
@pytest.mark.parametrize(
    ("conditions", "near", "far", "nowhere"),
    [
        ({"source_ip": ["10.0.0.0/8"]}, True, False, False),
        ({"source_ip": ["::ffff:10.0.0.0/104", "fd00::/8"]}, True, False, False),
        ({"dates": {"from": "2020-01-01"}}, True, True, True),
        ({"dates": {"until": "2020-01-01"}}, False, False, False),
        ({"max_ttl": "10000h"}, False, False, False),
        ({"wrapping": True}, False, False, False),
        ({"wrapping": False}, True, True, True),
    ],
)
async def test_agents(
    shared_hub: Running,
    agent: AgentCertificate,
    conditions: dict[str, Any],
    near: bool,
    far: bool,
    nowhere: bool,
) -> None:
    """For agents the connection's peer is the client; they have no token and wrap nothing."""
    agents = shared_hub
    await agents.ask("write", "sys/policies/acl/enrolling", {"policy": when(conditions, "secrets/else/**")})
    for address, expected in (("10.1.2.3", near), ("192.0.2.1", far), (None, nowhere), ("10.1.2.3", near)):
        try:
            await agents.ask("read", "secret/data/else/db", agent=agent, client_address=address)
            allowed = True
        except PermissionDenied:
            allowed = False
        assert allowed is expected, address
    # As a denial beside a grant: what is not known denies.
    rules = native("secrets/else/**")
    rules["statements"] += when(conditions, "secrets/else/**", effect="deny")["statements"]
    await agents.ask("write", "sys/policies/acl/enrolling", {"policy": rules})
    never_known = "max_ttl" in conditions
    for address, held in (
        ("10.1.2.3", near or never_known),
        ("192.0.2.1", far or never_known),
        (None, nowhere or never_known or "source_ip" in conditions),
    ):
        try:
            await agents.ask("read", "secret/data/else/db", agent=agent, client_address=address)
            allowed = True
        except PermissionDenied:
            allowed = False
        assert allowed is not held, address
