"""Conditions of policies from end to end: over HTTP, in lists, and as time goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.behind import reasons
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.kv import ok

WRAPPED = {"X-Vault-Wrap-TTL": "60"}


def when(conditions: dict[str, Any], *paths: str, effect: str = "allow") -> dict[str, Any]:
    """Return a policy whose one statement has conditions."""
    document = native(*(paths or ("secrets/app/**",)), capabilities=("read", "list"), effect=effect)
    document["statements"][0]["conditions"] = conditions
    return document


def window(before: int, after: int) -> dict[str, Any]:
    """Return a window of the day around now, in minutes, in UTC."""
    now = datetime.now(UTC)
    clock = [(now + timedelta(minutes=minutes)).strftime("%H:%M") for minutes in (-before, after)]
    return {"time": {"from": clock[0], "until": clock[1]}}


async def status(node: Node, token: str, path: str = "secrets/app/db", **how: Any) -> int:
    """Ask for a secret."""
    return (await node.call("GET", path, token, **how)).status_code


@pytest.fixture
async def hub(node: Node) -> Node:
    """A node with secrets in a folder."""
    return await _with_secrets(node)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_hub(shared_node: Node) -> Node:
    """The same for tests that only read these secrets, each with policies of its own."""
    return await _with_secrets(shared_node)


async def _with_secrets(node: Node) -> Node:
    for name in ("db", "root", "web"):
        await ok(node, "POST", f"secrets/app/{name}", {"data": {"k": "canary"}})
    return node


async def test_time_goes_on(hub: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was allowed within the window is refused after it, however often it was allowed before."""
    token = await hub.token("day", when(window(10, 10)), ttl="8h")
    move = hub.clock.move
    for _ in range(3):
        assert await status(hub, token) == 200
        assert (await hub.call("LIST", "secrets/app", token)).status_code == 200
    move(15 * 60)
    assert await status(hub, token) == 403
    assert (await hub.call("LIST", "secrets/app", token)).status_code == 403
    move(0)
    assert await status(hub, token) == 200


async def test_a_denial_at_certain_times(hub: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denial begins with its window although the same read was allowed a moment ago."""
    rules = native("secrets/app/**", capabilities=("read", "list"))
    rules["statements"] += when(window(-10, 20), "secrets/app/db", effect="deny")["statements"]
    token = await hub.token("night", rules, ttl="8h")
    move = hub.clock.move
    assert await status(hub, token) == 200
    assert (await ok(hub, "LIST", "secrets/app", token=token))["keys"] == ["db", "root", "web"]
    move(15 * 60)
    assert await status(hub, token) == 403
    assert await status(hub, token, "secrets/app/web") == 200
    # Lists tell no name whose list is denied now.
    assert (await ok(hub, "LIST", "secrets/app", token=token))["keys"] == ["root", "web"]
    assert (await ok(hub, "LIST", "secret/metadata/app", token=token))["keys"] == ["root", "web"]


@SHARING
async def test_lists_by_address(shared_hub: Node) -> None:
    """A name that is denied from here is not in the list here; Vault's rules are asked, too."""
    hub = shared_hub
    rules = native("secrets/app/**", capabilities=("list",))
    elsewhere = when({"source_ip": ["127.0.0.0/8"]}, "secrets/app/root", effect="deny")
    rules["statements"] += elsewhere["statements"]
    token = await hub.token("here", rules)
    assert (await ok(hub, "LIST", "secrets/app", token=token))["keys"] == ["db", "web"]
    rules["statements"][1]["conditions"] = {"source_ip": ["192.0.2.0/24"]}
    token = await hub.token("there", rules)
    assert (await ok(hub, "LIST", "secrets/app", token=token))["keys"] == ["db", "root", "web"]
    acl = {
        "path": {
            "secret/metadata/app/*": {"capabilities": ["list"]},
            "secret/metadata/app/db": {"capabilities": ["deny"]},
        }
    }
    token = await hub.token("acl", acl)
    assert (await ok(hub, "LIST", "secret/metadata/app/", token=token))["keys"] == ["root", "web"]


@SHARING
async def test_wrapping_is_demanded(shared_hub: Node) -> None:
    """A secret that is only given wrapped is given in no other way, and opens once."""
    hub = shared_hub
    token = await hub.token("courier", when({"wrapping": True}))
    for headers in ({}, {"X-Vault-Wrap-TTL": "0"}, {"X-Vault-Wrap-TTL": ""}, {"X-Vault-Wrap-TTL": "0s"}):
        answer = await hub.call("GET", "secrets/app/db", token, headers=headers)
        assert answer.status_code == 403
        assert "canary" not in answer.text
        refused = {"outcome": "denied", "request_id": answer.headers["x-request-id"]}
        told = await reasons(hub.settings.database_url, operation="kv.read", **refused)
        assert "wrapping of policy courier" in told[0]
    for path in ("secrets/app/db", "secret/data/app/db", "secret/subkeys/app/db"):
        answer = await hub.call("GET", path, token, headers=WRAPPED)
        assert answer.status_code == 200
        assert answer.json()["data"] is None
        assert "canary" not in answer.text
        opened = answer.json()["wrap_info"]["token"]
        assert (await hub.call("POST", "sys/wrapping/unwrap", opened)).status_code == 200
        assert (await hub.call("POST", "sys/wrapping/unwrap", opened)).status_code in {400, 403}


@SHARING
async def test_wrapping_is_forbidden(shared_hub: Node) -> None:
    """What may only be given in clear is refused to whoever wants it wrapped; a denial works likewise."""
    hub = shared_hub
    token = await hub.token("clear", when({"wrapping": False}))
    assert await status(hub, token) == 200
    assert await status(hub, token, headers=WRAPPED) == 403
    assert await status(hub, token) == 200
    rules = native("secrets/app/**")
    rules["statements"] += when({"wrapping": False}, effect="deny")["statements"]
    token = await hub.token("denied", rules)
    assert await status(hub, token) == 403
    assert await status(hub, token, headers=WRAPPED) == 200


@SHARING
async def test_the_life_of_a_token(shared_hub: Node) -> None:
    """What is only for short tokens ends when one was renewed beyond that, and endless ones never have it."""
    hub = shared_hub
    document = when({"max_ttl": "10m"})
    short = await hub.token("short", document, ttl="5m")
    for kind in ({"ttl": "10m"}, {"ttl": "10m", "type": "batch"}, {"period": "10m"}):
        assert await status(hub, await hub.token("short", document, **kind)) == 200
    for kind in ({"ttl": "11m"}, {"ttl": "11m", "type": "batch"}, {"period": "11m"}, {}):
        assert await status(hub, await hub.token("short", document, **kind)) == 403
    assert await status(hub, short) == 200
    await ok(hub, "POST", "auth/token/renew", {"token": short, "increment": "9m"})
    assert await status(hub, short) == 200
    await ok(hub, "POST", "auth/token/renew", {"token": short, "increment": "30m"})
    assert await status(hub, short) == 403
    # A denial of long ones is no longer met once it is short again.
    await ok(hub, "POST", "auth/token/renew", {"token": short, "increment": "2m"})
    assert await status(hub, short) == 200


async def test_a_periodic_token_grows_out_of_it(hub: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is renewed for ever is no short one, however short its period is."""
    token = await hub.token("short", when({"max_ttl": "10m"}), period="6m")
    move = hub.clock.move
    for minutes, expected in ((0, 200), (3, 200), (6, 403), (9, 403)):
        move(minutes * 60)
        await ok(hub, "POST", "auth/token/renew", {"token": token})
        assert await status(hub, token) == expected, minutes


@SHARING
async def test_wrapping_times_of_vaults_rules(shared_hub: Node) -> None:
    """``min_wrapping_ttl`` and ``max_wrapping_ttl`` beside a native rule: each language by itself."""
    hub = shared_hub
    limits = {"capabilities": ["read"], "min_wrapping_ttl": "30s", "max_wrapping_ttl": "90s"}
    token = await hub.token("times", {"path": {"secret/data/app/*": limits}})
    for ttl, expected in (("60", 200), ("29", 403), ("91", 403), ("0", 403)):
        assert await status(hub, token, headers={"X-Vault-Wrap-TTL": ttl}) == expected
    # Not granted by one is not denied by it.
    await hub.call("PUT", "sys/policies/acl/open", json={"policy": native("secrets/app/**")})
    made = await hub.call("POST", "auth/token/create", json={"policies": ["times", "open"]})
    assert await status(hub, made.json()["auth"]["client_token"]) == 200
