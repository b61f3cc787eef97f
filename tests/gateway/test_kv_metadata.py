"""Key/value version 2: a secret's metadata and the store's settings."""

from __future__ import annotations

import asyncio

from tests.gateway.behind import entries, ledger_is_good, sql
from tests.gateway.conftest import Node
from tests.gateway.kv import ok, put, status
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture


async def test_settings_of_the_store(node: Node) -> None:
    """What is set for a store is told, kept where not given, and holds in that store only."""
    neutral = {"max_versions": 0, "cas_required": False, "delete_version_after": "0s"}
    assert await ok(node, "GET", "secret/config") == neutral
    await ok(node, "POST", "secret/config", {})
    await ok(node, "PUT", "secret/config", {"max_versions": "5", "delete_version_after": "3h25m19s"})
    await ok(node, "POST", "secret/config", {"cas_required": True, "max_versions": None})
    full = {"max_versions": 5, "cas_required": True, "delete_version_after": "3h25m19s"}
    assert await ok(node, "GET", "secret/config") == full
    await ok(node, "POST", "sys/mounts/team", {"type": "kv-v2"})
    assert await ok(node, "GET", "team/config") == neutral
    tuned = {"description": "new"}
    await ok(node, "POST", "sys/mounts/secret/tune", tuned)
    assert await ok(node, "GET", "secret/config") == full
    for wrong in ({"cas_required": "maybe"}, {"delete_version_after": "soon"}, {"max_versions": [1]}):
        assert await status(node, "POST", "secret/config", wrong) == 400, wrong


async def test_check_and_set_is_required(node: Node) -> None:
    """Where the store or the secret demands it, no write goes without the version that it follows."""
    await put(node, "a", {"n": 1})
    await ok(node, "POST", "secret/metadata/a", {"cas_required": True})
    for method in ("POST", "PATCH"):
        refused = await node.call(method, "secret/data/a", json={"data": {}})
        assert (refused.status_code, refused.json()["code"]) == (400, "cas_mismatch")
        assert refused.json()["errors"] == ["check-and-set parameter required for this call"]
        assert await status(node, method, "secret/data/a", {"data": {}, "options": {"cas": 7}}) == 400
    await ok(node, "POST", "secret/data/a", {"data": {}, "options": {"cas": "1"}})
    await put(node, "b", {"n": 1})
    await ok(node, "POST", "secret/config", {"cas_required": True})
    assert await status(node, "POST", "secret/data/b", {"data": {}}) == 400
    warned = await node.call("POST", "secret/metadata/b", json={"cas_required": False})
    assert "mandated by backend config" in warned.json()["warnings"][0]


async def test_metadata(node: Node) -> None:
    """Settings and custom metadata are written, told with every version, and kept where not given."""
    await put(node, "a", {"n": 1})
    labels = {"owner": "team ü", "tier": 1}
    await ok(node, "POST", "secret/metadata/a", {"custom_metadata": labels, "max_versions": 3})
    await ok(node, "PUT", "secret/metadata/a", {"delete_version_after": "90s"})
    shown = await ok(node, "GET", "secret/metadata/a")
    expected = {
        "custom_metadata": {"owner": "team ü", "tier": "1"},
        "max_versions": 3,
        "delete_version_after": "1m30s",
        "cas_required": False,
        "current_version": 1,
        "oldest_version": 0,
    }
    assert expected.items() <= shown.items()
    assert (await ok(node, "GET", "secret/data/a"))["metadata"]["custom_metadata"] == shown["custom_metadata"]
    written = await ok(node, "POST", "secret/data/a", {"data": {}})
    assert written["custom_metadata"] == shown["custom_metadata"]
    await ok(node, "POST", "secret/metadata/a", {"custom_metadata": {"only": "this"}})
    assert (await ok(node, "GET", "secret/subkeys/a"))["metadata"]["custom_metadata"] == {"only": "this"}
    await ok(node, "POST", "secret/metadata/a", {"custom_metadata": {}})
    assert (await ok(node, "GET", "secret/metadata/a"))["custom_metadata"] is None
    for wrong in (
        {"custom_metadata": {str(n): "x" for n in range(65)}},
        {"custom_metadata": {"k" * 129: "x"}},
        {"custom_metadata": {"k": "x" * 513}},
        {"custom_metadata": {"k": ["x"]}},
        {"custom_metadata": "k=v"},
        {"delete_version_after": "-1s"},
    ):
        assert await status(node, "POST", "secret/metadata/a", wrong) == 400, wrong
    found = await entries(node.settings.database_url, operation="kv.metadata.write", kind="intent")
    assert found[0]["detail"]["body"]["max_versions"] == 3
    assert "team" not in str(found[0]["detail"])


async def test_metadata_before_the_first_version(node: Node) -> None:
    """Metadata may come first; there is nothing to read then, and the first version has it."""
    await ok(node, "POST", "secret/metadata/a", {"custom_metadata": {"k": "v"}})
    assert await status(node, "GET", "secret/data/a") == 404
    assert await status(node, "DELETE", "secret/data/a") == 204
    shown = await ok(node, "GET", "secret/metadata/a")
    assert (shown["current_version"], shown["versions"]) == (0, {})
    assert (await ok(node, "LIST", "secret/metadata"))["keys"] == ["a"]
    made = await ok(node, "POST", "secret/data/a", {"data": {"n": 1}, "options": {"cas": 0}})
    assert (made["version"], made["custom_metadata"]) == (1, {"k": "v"})
    assert (await ok(node, "GET", "secret/data/a"))["data"] == {"n": 1}
    refused = await node.call("POST", "secret/metadata/dynamic/x", json={"max_versions": 1})
    assert refused.status_code == 400
    await ok(node, "POST", "secret/metadata/nothing", {})
    assert await status(node, "GET", "secret/metadata/nothing") == 404


async def test_patching_metadata(node: Node) -> None:
    """A patch changes what it names; null takes a setting or a field back; unknown names are a warning."""
    await put(node, "a", {"n": 1})
    await ok(
        node,
        "POST",
        "secret/metadata/a",
        {"custom_metadata": {"a": "1", "b": "2"}, "max_versions": 4, "cas_required": True},
    )
    await ok(node, "PATCH", "secret/metadata/a", {"custom_metadata": {"a": None, "c": 3}, "max_versions": 7})
    shown = await ok(node, "GET", "secret/metadata/a")
    assert shown["custom_metadata"] == {"b": "2", "c": "3"}
    assert (shown["max_versions"], shown["cas_required"]) == (7, True)
    await ok(
        node,
        "PATCH",
        "secret/metadata/a",
        {"custom_metadata": None, "cas_required": None, "max_versions": None},
    )
    shown = await ok(node, "GET", "secret/metadata/a")
    assert (shown["custom_metadata"], shown["max_versions"], shown["cas_required"]) == (None, 0, False)
    warned = await node.call("PATCH", "secret/metadata/a", json={"versions": {}, "max_versions": 1})
    assert "'versions'" in warned.json()["warnings"][0]
    assert await status(node, "PATCH", "secret/metadata/none", {"max_versions": 1}) == 404
    for wrong in (
        {"max_versions": True},
        {"max_versions": 1.5},
        {"cas_required": 1},
        {"custom_metadata": []},
        {"custom_metadata": {"x": {}}},
        {"custom_metadata": {str(n): "x" for n in range(65)}},
        {"delete_version_after": [1]},
    ):
        assert await status(node, "PATCH", "secret/metadata/a", wrong) == 400, wrong


async def test_removing_a_secret(node: Node, second: Second) -> None:
    """A removed secret is gone in every process with all that it was, and can be made anew."""
    url = node.settings.database_url
    for process in (node, second):
        await put(node, "a", {"n": 1}, {"n": 2})
        await ok(node, "POST", "secret/metadata/a", {"custom_metadata": {"k": "v"}})
        assert (await second.call("GET", "secret/data/a", node.root)).status_code == 200
        gone = await process.call("DELETE", "secret/metadata/a", node.root)
        assert gone.status_code == 204
        for one in (node, second):
            for path in ("secret/data/a", "secret/data/a?version=1", "secret/metadata/a"):
                assert (await one.call("GET", path, node.root)).status_code == 404, path
        assert await sql(url, "SELECT 1 FROM kv_secrets") == []
        assert await sql(url, "SELECT 1 FROM kv_versions") == []
    other = await second.call("POST", "secret/data/a", node.root, json={"data": {"n": 3}})
    assert other.json()["data"]["version"] == 1
    shown = await ok(node, "GET", "secret/data/a")
    assert (shown["data"], shown["metadata"]["custom_metadata"]) == ({"n": 3}, None)
    assert await status(node, "DELETE", "secret/metadata/none") == 204
    await ledger_is_good(node)


async def test_removing_and_making_without_a_pause(node: Node, second: Second) -> None:
    """Secrets that two processes make, change and remove all the time are never taken for tampered."""
    seen: set[int] = set()

    async def work(process: Node | Second, number: int) -> None:
        for turn in range(12):
            path = f"hot/{(number + turn) % 2}"
            for method, where, body in (
                ("POST", f"secret/data/{path}", {"data": {"n": turn}}),
                ("GET", f"secret/data/{path}?version=1", None),
                ("POST", f"secret/delete/{path}", {"versions": [1]}),
                ("PATCH", f"secret/metadata/{path}", {"custom_metadata": {"k": str(turn)}}),
                ("DELETE", f"secret/metadata/{path}", None),
                ("GET", f"secret/metadata/{path}", None),
            ):
                answer = await process.call(method, where, node.root, json=body)
                seen.add(answer.status_code)
                assert answer.status_code in {200, 204, 404}, (method, where, answer.text)

    await asyncio.gather(*(work(process, n) for n, process in enumerate((node, second) * 2)))
    assert {200, 204, 404} == seen
