"""Key/value version 2: versions compared, and the way back to one."""

from __future__ import annotations

import asyncio

from tests.gateway.behind import entries
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put, status


async def test_compare(node: Node) -> None:
    """Two versions differ by what was added, removed and changed; types count, the order of keys does not."""
    await put(
        node,
        "a",
        {"same": {"x": 1, "y": 2}, "type": 1, "gone": "g", "value": "old"},
        {"value": "new", "same": {"y": 2, "x": 1}, "type": True, "made": [1]},
        {"value": "newest"},
    )
    shown = await ok(node, "GET", "secret/compare/a?from=1&to=2")
    assert (shown["from"]["version"], shown["to"]["version"]) == (1, 2)
    assert shown["added"] == {"made": [1]}
    assert shown["removed"] == {"gone": "g"}
    assert shown["changed"] == {"type": {"from": 1, "to": True}, "value": {"from": "old", "to": "new"}}
    assert shown["unchanged"] == ["same"]
    newest = await ok(node, "GET", "secret/compare/a")
    assert (newest["from"]["version"], newest["to"]["version"]) == (2, 3)
    back = await ok(node, "GET", "secret/compare/a?from=3&to=1")
    assert back["added"].keys() == {"same", "type", "gone"}
    await ok(node, "POST", "secret/delete/a", {"versions": [2]})
    for query, code in (("", 404), ("from=1&to=9", 404), ("from=x", 400), ("to=-1", 400), ("to=1", 404)):
        assert await status(node, "GET", f"secret/compare/a?{query}") == code, query
    assert await status(node, "GET", "secret/compare/none") == 404


async def test_rollback(node: Node) -> None:
    """An older version's value becomes the newest version's, and nothing else changes."""
    await put(node, "a", {"n": 1}, {"n": 2})
    made = await ok(node, "POST", "secret/rollback/a", {"version": 1, "options": {"cas": 2}})
    assert made["version"] == 3
    assert (await ok(node, "GET", "secret/data/a"))["data"] == {"n": 1}
    assert (await ok(node, "GET", "secret/data/a?version=2"))["data"] == {"n": 2}
    found = await entries(node.settings.database_url, operation="kv.rollback", kind="outcome")
    assert (found[0]["detail"]["answer"]["from"], found[0]["detail"]["answer"]["version"]) == (1, 3)
    await ok(node, "POST", "secret/delete/a", {"versions": [1]})
    await ok(node, "POST", "secret/destroy/a", {"versions": [2]})
    for body, code in (
        ({"version": 1}, 404),
        ({"version": 2}, 404),
        ({"version": 9}, 404),
        ({"version": 0}, 400),
        ({"version": 1 << 31}, 400),
        ({"version": 3, "options": {"cas": 1}}, 400),
        ({"version": "3"}, 400),
        ({}, 400),
        ({"version": 3, "other": 1}, 400),
    ):
        assert await status(node, "POST", "secret/rollback/a", body) == code, body
    assert await status(node, "POST", "secret/rollback/none", {"version": 1}) == 404
    await ok(node, "POST", "secret/metadata/a", {"cas_required": True})
    assert await status(node, "POST", "secret/rollback/a", {"version": 3}) == 400


async def test_rollback_beside_writers(node: Node) -> None:
    """Rollbacks and writes at the same time each make a version of their own."""
    await put(node, "a", {"n": 0})
    await ok(node, "POST", "secret/metadata/a", {"max_versions": 100})

    async def one(number: int) -> int:
        if number % 2:
            return int((await ok(node, "POST", "secret/rollback/a", {"version": 1}))["version"])
        return int((await ok(node, "POST", "secret/data/a", {"data": {"n": number}}))["version"])

    assert sorted(await asyncio.gather(*map(one, range(24)))) == list(range(2, 26))


async def test_what_denies_the_value_denies_its_history(node: Node) -> None:
    """A rule on Vault's path of the value holds for what Vault does not have, whatever else is granted."""
    await put(node, "a", {"k": "canary"}, {"k": "canary-2"})
    everything = ["create", "read", "update", "patch", "delete", "list", "sudo"]
    paths = {"secret/*": {"capabilities": everything}}
    allowed = await node.token("all", {"path": paths})
    denied = await node.token("but", {"path": paths | {"secret/data/a": {"capabilities": ["deny"]}}})
    reads = await node.token("reads", {"path": paths | {"secret/data/a": {"capabilities": ["read"]}}})
    only = await node.token("only", {"path": {"secret/compare/a": {"capabilities": everything}}})
    for token, compared, rolled in (
        (allowed, 200, 200),
        (denied, 403, 403),
        (reads, 200, 403),
        (only, 403, 403),
    ):
        answer = await node.call("GET", "secret/compare/a", token)
        assert answer.status_code == compared
        assert ("canary" in answer.text) == (compared == 200)
        assert await status(node, "POST", "secret/rollback/a", {"version": 1}, token=token) == rolled
    natively = await node.token("native", native("secrets/a"))
    assert await status(node, "GET", "secret/compare/a", token=natively) == 200
    found = await entries(node.settings.database_url, operation="kv.compare", outcome="denied")
    assert len(found) == 2
    assert found[0]["reason"] == "no policy allows read at secret/data/a"
