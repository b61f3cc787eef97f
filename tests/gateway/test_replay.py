"""Replaying a proposed policy: what would change, and what the ledger cannot tell."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from authority_core import Running
from enrolled_hosts import certificate_of, enrolling_hub, host_of

from secrethub.engines.system import replay as replaying
from secrethub.errors import PermissionDenied
from tests.gateway.behind import fill_ledger
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.shell import Cli, cli

__all__ = ["cli"]  # the fixture

READ = native("secrets/app/**", capabilities=("read", "list"))
NOTHING: dict[str, Any] = {"version": "1", "statements": []}


async def replayed(node: Node, policy: Any, name: str = "app", **more: Any) -> dict[str, Any]:
    """Replay and return the answer's data."""
    answer = await node.call("POST", "sys/policies/replay", json={"name": name, "policy": policy, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


def told(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return operation, path and verdict after, of what would change."""
    return [(one["operation"], one["path"], one["after"]) for one in found["changes"]]


@pytest.fixture
async def hub(node: Node) -> tuple[Node, str]:
    """A node and a token of a policy ``app`` that has read, written and been refused."""
    for path in ("app/db", "other/db"):
        await node.call("POST", f"secrets/{path}", json={"data": {"k": 1}})
    token = await node.token("app", READ, ttl="1h")
    await node.call("GET", "secrets/app/db", token)
    await node.call("GET", "secrets/other/db", token)
    await node.call("LIST", "secrets/app", token)
    await node.call("DELETE", "secrets/app/db", token)
    return node, token


async def test_what_would_change(hub: tuple[Node, str]) -> None:
    """Requests that would be denied from then on, or allowed, are listed with their entries."""
    node, token = hub
    assert told(await replayed(node, READ)) == []
    found = await replayed(node, NOTHING)
    assert told(found) == [
        ("kv.read", "secret/data/app/db", "denied"),
        ("kv.list", "secret/metadata/app", "denied"),
    ]
    assert found["changes"][0]["before"] == "allowed"
    assert found["changes"][0]["outcome"] == "done"
    assert found["changes"][0]["actor"].startswith("token:")
    assert token not in json.dumps(found)
    wide = native("secrets/**", capabilities=("read", "list", "delete"))
    assert told(await replayed(node, wide)) == [
        ("kv.read", "secret/data/other/db", "allowed"),
        ("kv.delete", "secret/data/app/db", "allowed"),
    ]
    hcl = 'path "secret/data/app/*" { capabilities = ["read"] }'
    assert told(await replayed(node, hcl)) == [("kv.list", "secret/metadata/app", "denied")]
    # Nothing of that was written.
    assert json.loads((await node.call("GET", "sys/policies/acl/app")).json()["data"]["policy"]) == READ


async def test_a_new_policy(hub: tuple[Node, str]) -> None:
    """A name that nobody has changes nothing, unless it is taken as bound to everybody looked at."""
    node, _ = hub
    deny = native("secrets/app/**", capabilities=("*",), effect="deny")
    assert told(await replayed(node, deny, "new")) == []
    found = await replayed(node, deny, "new", attach=True)
    assert [path for _, path, _ in told(found)] == ["secret/data/app/db", "secret/metadata/app"]
    actor = found["changes"][0]["actor"]
    assert len((await replayed(node, deny, "new", attach=True, actor=actor))["changes"]) == 2
    assert (await replayed(node, deny, "new", attach=True, actor="agent:"))["looked_at"] == 0


async def test_conditions_hold_as_they_did(hub: tuple[Node, str]) -> None:
    """Time, address, the token's life and wrapping are those of the request, not of the replay."""
    node, token = hub
    wrapped = await node.call("GET", "secrets/app/db", token, headers={"X-Vault-Wrap-TTL": "60"})
    assert wrapped.status_code == 200
    cases: tuple[tuple[dict[str, Any], int], ...] = (
        ({"source_ip": ["127.0.0.0/8"]}, 0),
        ({"source_ip": ["10.0.0.0/8"]}, 3),
        ({"max_ttl": "1h"}, 0),
        ({"max_ttl": "59m"}, 3),
        ({"wrapping": True}, 2),
        ({"wrapping": False}, 1),
        ({"dates": {"until": "2020-01-01"}}, 3),
        ({"dates": {"from": "2020-01-01"}}, 0),
    )
    for conditions, count in cases:
        document = json.loads(json.dumps(READ))
        document["statements"][0]["conditions"] = conditions
        found = told(await replayed(node, document))
        assert [after for _, _, after in found] == ["denied"] * count, conditions


async def test_what_the_ledger_cannot_tell(hub: tuple[Node, str]) -> None:
    """A verdict that hangs on what no entry holds is counted, with the reason, and not listed."""
    node, token = hub
    await node.call("PUT", "sys/policies/acl/app", json={"policy": native("secrets/**", capabilities=("*",))})
    assert (await node.call("POST", "secrets/app/new", token, json={"data": {"k": 1}})).status_code == 200
    only_new = native("secrets/**", capabilities=("create", "read", "list", "delete"))
    reason = "the ledger does not hold whether it was made or changed"
    assert (await replayed(node, only_new))["undecided"] == {reason: 1}
    narrowed = 'path "secret/*" { capabilities = ["create", "update"] allowed_parameters = { "data" = [] } }'
    reason = "a rule asks about parameters, which the ledger keeps masked"
    assert (await replayed(node, narrowed))["undecided"] == {reason: 1}
    await node.call("POST", "auth/token/revoke", json={"token": token})
    found = await replayed(node, NOTHING)
    assert found["changes"] == []
    assert list(found["undecided"]) == ["the token is gone, and with it which policies it had"]
    assert found["looked_at"] > found["undecided"].popitem()[1] > 4


async def test_pages(hub: tuple[Node, str]) -> None:
    """A page looks at no more, and lists no more, than its bounds; together they have each change once."""
    node, token = hub
    for _ in range(replaying._SHOWN):
        await node.call("GET", "secrets/app/db", token)
    await fill_ledger(node, replaying._LOOKED_AT)
    pages = [await replayed(node, NOTHING)]
    while pages[-1]["next"]:
        pages.append(await replayed(node, NOTHING, after=pages[-1]["next"]))
    assert len(pages) >= 3
    assert [len(page["changes"]) for page in pages[:2]] == [replaying._SHOWN, 2]
    assert pages[1]["looked_at"] == replaying._LOOKED_AT
    places = [(one["stream"], one["number"]) for page in pages for one in page["changes"]]
    assert places == sorted(set(places))
    assert len(places) == replaying._SHOWN + 2
    assert (await replayed(node, NOTHING, since="2100-01-01T00:00:00Z"))["looked_at"] == 0


@SHARING
@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "{"},
        {"policy": None},
        {"name": "root"},
        {"name": "a b"},
        {"since": "soon"},
        {"since": "2030-13-01T00:00:00Z"},
        {"since": "292y"},
        {"since": 9_000_000_000_000},
        {"until": "0001-01-01T00:00:00Z"},
        {"after": "1.x.2"},
        {"after": "9999999999999999999.6f1c0c1e-0000-4000-8000-000000000000.1"},
        {"after": "x"},
        {"actor": "token:\u0000"},
        {"limit": 5},
    ],
)
async def test_what_cannot_be_replayed(shared_node: Node, wrong: dict[str, Any]) -> None:
    """What is no question is refused with a reason."""
    body = {"name": "app", "policy": NOTHING, **wrong}
    answer = await shared_node.call("POST", "sys/policies/replay", json=body)
    assert answer.status_code == 400, answer.text


async def test_who_may(node: Node) -> None:
    """The past of everybody is told to those alone who have sudo for it."""
    body = {"name": "app", "policy": NOTHING}
    for name, capabilities, status in (("weak", ("update",), 403), ("auditor", ("update", "sudo"), 200)):
        token = await node.token(name, native("sys/policies/replay", capabilities=capabilities))
        assert (await node.call("POST", "sys/policies/replay", token, json=body)).status_code == status
    assert (await node.call("POST", "sys/policies/replay", "", json=body)).status_code == 403


@pytest.fixture
async def agents(database_url: str, tmp_path: Path) -> AsyncIterator[Running]:
    """One process with a policy for enrolling."""
    async with enrolling_hub(database_url, tmp_path) as started:
        yield started


async def test_agents(agents: Running) -> None:
    """An agent's requests are decided with its role's policies, its bindings and its own paths."""
    enrolled = await (await host_of(agents, "web")).enroll()
    agent, agent_id = certificate_of(enrolled), enrolled["agent_id"]
    for path in (f"own/{agent_id}/db", "own/other/db"):
        await agents.ask("write", f"secret/data/{path}", {"data": {"password": "p"}})
        with pytest.raises(PermissionDenied):
            await agents.ask("read", f"secret/data/{path}", agent=agent)
    await agents.ask("write", "sys/policies/acl/own", {"policy": NOTHING})
    body = {"name": "own", "policy": native("secrets/own/{{agent.id}}/**")}
    assert (await agents.data("write", "sys/policies/replay", body))["changes"] == []
    await agents.ask("write", "sys/policies/bindings/own", {"agent": agent_id})
    (change,) = (await agents.data("write", "sys/policies/replay", body))["changes"]
    assert (change["path"], change["before"], change["after"]) == (
        f"secret/data/own/{agent_id}/db",
        "denied",
        "allowed",
    )
    await agents.ask("write", f"agents/{agent_id}/revoke", {})
    await agents.ask("delete", "auth/approle/role/web")
    found = await agents.data("write", "sys/policies/replay", body)
    assert "the agent or its role is gone, and with it which policies it had" in found["undecided"]


async def test_command(hub: tuple[Node, str], cli: Cli) -> None:
    """The command goes through all pages and shows what would change."""
    given = json.dumps(NOTHING)
    words = ("policy", "replay", "-", "--name", "app", "--since", "7d")
    found = await cli.json(*words, stdin=given)
    assert len(found["changes"]) == 2
    shown = await cli(*words, stdin=given)
    assert "secret/data/app/db" in shown
    assert "Would change" in shown
    assert "more requests" not in shown
    await cli("policy", "replay", "-", stdin=given, code=2)
