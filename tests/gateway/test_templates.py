"""The catalogue of templates over HTTP and the command line, and agents with a folder each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from authority_core import Running
from enrolled_hosts import Host, certificate_of, enrolling_hub

from secrethub.errors import PermissionDenied
from secrethub.operations.call import AgentCertificate
from tests.gateway.conftest import Node, native
from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture

TEMPLATES = "sys/policies/templates"


@pytest.fixture
async def hub(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process with a secret in the folders of two agents."""
    async with enrolling_hub(database_url, tmp_path) as started:
        yield started


async def may(hub: Running, agent: AgentCertificate, path: str) -> bool:
    """Tell whether an agent may read a secret."""
    try:
        await hub.ask("read", f"secret/data/{path}", agent=agent)
    except PermissionDenied:
        return False
    return True


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_folder_for_each_agent(hub: Running, by: str) -> None:
    """With the template per-agent each agent reads its own folder and no other's, whoever compiled first."""
    given = {"prefix": "secrets/agents", "by": by, "capabilities": ["read", "list"]}
    document = (await hub.data("write", f"{TEMPLATES}/per-agent", {"parameters": given}))["policy"]
    await hub.ask("write", "sys/policies/acl/enrolling", {"policy": document})
    await hub.ask(
        "write", "sys/policies/acl/start", {"policy": native("agents/**", capabilities=("update",))}
    )
    host = Host(hub=hub, token=await hub.login(*await hub.role("web", "enrolling", "start")))
    agents = {}
    for name in ("web-1", "web-2", "web"):
        enrolled = await Host(hub=hub, token=host.token).enroll(name)
        agents[name] = (enrolled[f"agent_{by}"] if by == "id" else name, certificate_of(enrolled))
    for own, _ in agents.values():
        await hub.ask("write", f"secret/data/agents/{own}/db", {"data": {"password": own}})
    for own, agent in agents.values():
        for other, _ in agents.values():
            assert await may(hub, agent, f"agents/{other}/db") is (own == other)
    with pytest.raises(PermissionDenied):
        await hub.ask("read", f"secret/data/agents/{own}/db", token=host.token)
    # Somebody who enrols as a wildcard, or as a way up, is refused as a name.
    for name in ("*", "**", "web-1/..", "..", "{{agent.id}}"):
        with pytest.raises(Exception, match="name has"):
            await Host(hub=hub, token=host.token).enroll(name)


async def test_the_catalogue(node: Node) -> None:
    """Templates are listed, shown and rendered for those who may; nothing is written by that."""
    listed = (await node.call("LIST", TEMPLATES)).json()["data"]
    assert listed["keys"] == [
        "business-hours",
        "emergency",
        "network-restricted",
        "per-agent",
        "read-only",
        "time-limited",
    ]
    for name in listed["keys"]:
        shown = (await node.call("GET", f"{TEMPLATES}/{name}")).json()["data"]
        assert shown["about"] == listed["key_info"][name]["about"]
        assert any(one["required"] for one in shown["parameters"])
    before = (await node.call("LIST", "sys/policies/acl")).json()["data"]["keys"]
    for body in (
        {},
        {"parameters": {"paths": 1}},
        {"parameters": {}, "name": "x"},
        {"parameters": {"x": "y"}},
    ):
        assert (await node.call("POST", f"{TEMPLATES}/read-only", json=body)).status_code == 400
    body = {"parameters": {"paths": "secrets/web/**"}}
    rendered = (await node.call("POST", f"{TEMPLATES}/read-only", json=body)).json()["data"]["policy"]
    assert rendered == native("secrets/web/**", capabilities=("read", "list"))
    assert (await node.call("POST", f"{TEMPLATES}/nothing", json=body)).status_code == 404
    token = await node.token("other", native("secrets/**"))
    for method, path in (
        ("LIST", TEMPLATES),
        ("GET", f"{TEMPLATES}/read-only"),
        ("POST", f"{TEMPLATES}/read-only"),
    ):
        assert (await node.call(method, path, token, json=body)).status_code == 403
    assert (await node.call("LIST", "sys/policies/acl")).json()["data"]["keys"] == sorted([*before, "other"])


async def test_commands(node: Node, cli: Cli) -> None:
    """A policy is written from a template, or its document only printed."""
    assert "emergency" in await cli("policy", "template", "list")
    assert "secrets/agents" in await cli("policy", "template", "show", "per-agent")
    words = ("policy", "template", "apply", "read-only", "paths=secrets/a", "paths=secrets/b=c/**")
    document = json.loads(await cli(*words, "--dry-run"))
    assert document["statements"][0]["paths"] == ["secrets/a", "secrets/b=c/**"]
    assert "is written" in await cli(*words, "--name", "web")
    assert json.loads(await cli("policy", "read", "web")) == document
    for wrong in (words, (*words, "--name", "x", "--dry-run"), (*words, "nothing", "--dry-run")):
        await cli(*wrong, code=2)
    trial = ("policy", "test", "secrets/agents/a/db", "--file", "-")
    given = json.dumps(native("secrets/agents/{{agent.id}}/*"))
    assert "allowed" in await cli(*trial, "--agent-id", "a", stdin=given)
    for other in (("--agent-id", "b"), ("--agent-name", "a"), ()):
        await cli(*trial, *other, stdin=given, code=1)
    assert "unknown parameter" in await cli(*words, "x=y", "--dry-run", code=1)


async def test_trying_placeholders(node: Node) -> None:
    """A trial says what a policy with placeholders decides about an agent, and about nobody in particular."""
    document = native("secrets/agents/{{agent.id}}/**")
    question = {"path": "secrets/agents/a/db", "documents": [document]}
    for agent, allowed in (
        ({"id": "a", "name": "n"}, True),
        ({"id": "*", "name": "n"}, False),
        (None, False),
    ):
        body = question if agent is None else {**question, "agent": agent}
        found = (await node.call("POST", "sys/policies/simulate", json=body)).json()["data"]
        assert found["allowed"] is allowed
    refused = await node.call(
        "PUT",
        "sys/policies/acl/v",
        json={"policy": 'path "secret/data/{{identity.entity.id}}" { policy = "read" }'},
    )
    assert refused.status_code == 400
    assert "there are no entities" in refused.json()["errors"][0]
