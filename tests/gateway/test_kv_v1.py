"""Key/value version 1: plain paths, one value each."""

from __future__ import annotations

import pytest

from tests.gateway.behind import sql
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.kv import ok, status


@pytest.fixture
async def store(node: Node) -> Node:
    """A node with a store of version 1 at ``one/``."""
    await ok(node, "POST", "sys/mounts/one", {"type": "kv"})
    return node


async def test_values(store: Node) -> None:
    """A value is any JSON object; writing replaces it, deleting removes it."""
    node = store
    value = {"data": {"x": None}, "n": 1.5, "ü": ["ß", None], "options": {"cas": 0}}
    written = await node.call("POST", "one/a/b", json=value)
    assert (written.status_code, written.content) == (204, b"")
    answer = (await node.call("GET", "one/a/b")).json()
    assert answer["data"] == value
    assert (answer["lease_duration"], answer["renewable"], answer["lease_id"]) == (2764800, False, "")
    await ok(node, "PUT", "one/a/b", {"only": 1})
    assert await ok(node, "GET", "one/a/b") == {"only": 1}
    await ok(node, "POST", "one/config", {"k": "v"})
    assert (await ok(node, "LIST", "one"))["keys"] == ["a/", "config"]
    assert (await ok(node, "GET", "one/a?list=true"))["keys"] == ["b"]
    assert await status(node, "LIST", "one/none") == 404
    assert await status(node, "GET", "one/none") == 404
    assert await status(node, "POST", "one/a/b", {}) == 400
    assert await status(node, "PATCH", "one/a/b", {"x": 1}) == 405
    for _ in range(2):
        assert await status(node, "DELETE", "one/a/b") == 204
        assert await status(node, "GET", "one/a/b") == 404
    await ok(node, "POST", "one/a/b", {"again": 1})
    assert await ok(node, "GET", "one/a/b") == {"again": 1}
    rows = await sql(node.settings.database_url, "SELECT count(*) AS n FROM kv_versions")
    assert rows[0]["n"] == 2


@SHARING
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ({"ttl": "30m"}, 1800),
        ({"ttl": 90}, 90),
        ({"lease": "1h"}, 3600),
        ({"ttl": "30m", "lease": "1h"}, 1800),
        ({"ttl": "whenever"}, 2764800),
        ({"ttl": {"x": 1}}, 2764800),
        ({"k": "v"}, 2764800),
    ],
)
async def test_when_to_ask_again(shared_node: Node, value: dict[str, object], seconds: int) -> None:
    """A value says itself for how long it is good; otherwise the mount does."""
    store = shared_node
    await ok(store, "POST", "sys/mounts/one", {"type": "kv"})
    await ok(store, "POST", "one/a", value)
    answer = (await store.call("GET", "one/a")).json()
    assert (answer["data"], answer["lease_duration"]) == (value, seconds)
    await ok(store, "POST", "sys/mounts/one/tune", {"default_lease_ttl": "5m"})
    answer = (await store.call("GET", "one/a")).json()
    assert answer["lease_duration"] == (300 if seconds == 2764800 else seconds)
    await ok(store, "DELETE", "sys/mounts/one")


async def test_policies(store: Node) -> None:
    """Each operation needs its capability at the plain path, in both languages."""
    node = store
    await ok(node, "POST", "one/a", {"k": "v"})
    calls = {
        "read": ("GET", "one/a", None, 200),
        "list": ("LIST", "one", None, 200),
        "update": ("POST", "one/a", {"k": "v"}, 204),
        "create": ("POST", "one/new", {"k": "v"}, 204),
        "delete": ("DELETE", "one/gone", None, 204),
    }
    for granted in calls:
        acl = {"path": {"one/*": {"capabilities": [granted]}}}
        for name, policy in (("n", native("one/**", capabilities=(granted,))), ("v", acl)):
            token = await node.token(name + granted, policy)
            for needed, (method, path, body, code) in calls.items():
                expected = code if needed == granted else 403
                answer = await node.call(method, path, token, json=body)
                assert answer.status_code == expected, (granted, name, needed, answer.text)
            await node.call("DELETE", "one/new")
