"""Key/value version 2: patch, subkeys, delete, undelete, destroy, limits of versions, what time deletes."""

from __future__ import annotations

import pytest

from tests.gateway.behind import entries, ledger_is_good, sql
from tests.gateway.conftest import SHARING, Node
from tests.gateway.kv import ok, put, status

_PATCH = {"Content-Type": "application/merge-patch+json"}


@SHARING
async def test_patch(shared_node: Node) -> None:
    """A patch makes a version of the newest: null removes, objects merge, all else replaces."""
    node = shared_node
    await put(node, "patched", {"keep": 1, "drop": 2, "deep": {"x": 1, "y": 2}, "list": [1]})
    change = {"data": {"drop": None, "deep": {"y": None, "z": 3}, "list": [2]}, "options": {"cas": 1}}
    made = await ok(node, "PATCH", "secret/data/patched", change, headers=_PATCH)
    assert (made["version"], made["destroyed"], made["deletion_time"]) == (2, False, "")
    read = await ok(node, "GET", "secret/data/patched")
    assert read["data"] == {"keep": 1, "deep": {"x": 1, "z": 3}, "list": [2]}
    assert (await ok(node, "GET", "secret/data/patched?version=1"))["data"]["drop"] == 2
    wrong = await node.call("PATCH", "secret/data/patched", json=change)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "cas_mismatch")
    for path, body, code in (
        ("secret/data/patched", {}, 400),
        ("secret/data/patched", {"data": None}, 400),
        ("secret/data/patched", {"data": "text"}, 400),
        ("secret/data/none", {"data": {"x": 1}}, 404),
        ("secret/data/none", {"data": {"x": 1}, "options": {"cas": 7}}, 404),
    ):
        assert await status(node, "PATCH", path, body) == code, (path, body)
    await ok(node, "PATCH", "secrets/patched", {"data": {"flat": True}})
    assert (await ok(node, "GET", "secrets/patched"))["data"]["flat"] is True
    await ok(node, "DELETE", "secret/data/patched")
    assert await status(node, "PATCH", "secret/data/patched", {"data": {"x": 1}}) == 404
    assert await sql(node.settings.database_url, "SELECT 1 FROM kv_secrets WHERE path = 'none'") == []


@SHARING
async def test_numbers_keep_their_digits(shared_node: Node) -> None:
    """What is written, patched or brought back is read digit by digit; other digits are a change."""
    node = shared_node
    value = '{"a":1.10,"b":[3.141592653589793238462643,{"c":1E-7}],"d":123456789012345678901234567890}'
    await ok(node, "POST", "sys/mounts/one", {"type": "kv"})
    for path, body in (("secret/data/n", f'{{"data":{value}}}'), ("one/n", value)):
        assert (await node.call("POST", path, content=body)).is_success
        assert value in (await node.call("GET", path)).text, path
    patched = await node.call("PATCH", "secret/data/n", content='{"data":{"a":1.1,"e":2.50}}')
    assert patched.status_code == 200
    expected = value.replace("1.10", "1.1").removesuffix("}") + ',"e":2.50}'
    assert expected in (await node.call("GET", "secret/data/n")).text
    compared = (await node.call("GET", "secret/compare/n")).text
    assert '"changed":{"a":{"from":1.10,"to":1.1}}' in compared
    assert '"unchanged":["b","d"]' in compared
    await ok(node, "POST", "secret/rollback/n", {"version": 1})
    assert value in (await node.call("GET", "secret/data/n")).text
    for method, path, content in (("GET", "secret/data/n", None), ("POST", "sys/wrapping/wrap", value)):
        wrapping = await node.call(method, path, content=content, headers={"X-Vault-Wrap-TTL": "60"})
        opened = await node.call("POST", "sys/wrapping/unwrap", wrapping.json()["wrap_info"]["token"])
        assert value in opened.text, path
    assert (await node.call("POST", "cubbyhole/n", content=value)).is_success
    assert value in (await node.call("GET", "cubbyhole/n")).text
    tiny = '{"data":{"a":1e-99999999999999999999}}'
    assert (await node.call("POST", "secret/data/tiny", content=tiny)).status_code == 200


@SHARING
async def test_subkeys(shared_node: Node) -> None:
    """Keys of any version are told without a value, to the depth asked for."""
    node = shared_node
    await put(node, "keys", {"x": {"y": {"z": "canary"}}, "e": {}, "l": ["canary"]}, {"other": "canary"})
    first = await node.call("GET", "secret/subkeys/keys?version=1")
    assert first.json()["data"]["subkeys"] == {"x": {"y": {"z": None}}, "e": None, "l": None}
    assert first.json()["data"]["metadata"]["version"] == 1
    assert "canary" not in first.text
    assert (await ok(node, "GET", "secret/subkeys/keys?version=1&depth=1"))["subkeys"] == dict.fromkeys("xel")
    assert (await ok(node, "GET", "secret/subkeys/keys"))["subkeys"] == {"other": None}
    for query, code in (("version=9", 404), ("version=x", 400), ("depth=-1", 400)):
        assert await status(node, "GET", f"secret/subkeys/keys?{query}") == code, query
    await ok(node, "DELETE", "secret/data/keys")
    gone = await node.call("GET", "secret/subkeys/keys")
    assert (gone.status_code, gone.json()["data"]["subkeys"]) == (404, None)
    assert gone.json()["data"]["metadata"]["deletion_time"] != ""


@SHARING
async def test_delete_undelete_destroy(shared_node: Node) -> None:
    """Versions are deleted and brought back; what is destroyed stays away, its value too."""
    node = shared_node
    await put(node, "gone", {"n": 1}, {"n": 2}, {"n": 3}, {"n": 4})
    await ok(node, "POST", "secret/delete/gone", {"versions": [1, 2, "3", 9]})
    assert [await status(node, "GET", f"secret/data/gone?version={n}") for n in (1, 2, 3, 4)] == [404] * 3 + [
        200
    ]
    await ok(node, "PUT", "secret/undelete/gone", {"versions": "1,2"})
    assert (await ok(node, "GET", "secret/data/gone?version=2"))["data"] == {"n": 2}
    await ok(node, "POST", "secret/destroy/gone", {"versions": [2, 3, 4, 17]})
    destroyed = await node.call("GET", "secret/data/gone")
    assert destroyed.status_code == 404
    assert destroyed.json()["data"] == {
        "data": None,
        "metadata": destroyed.json()["data"]["metadata"] | {"destroyed": True, "version": 4},
    }
    await ok(node, "POST", "secret/undelete/gone", {"versions": [2, 3, 4]})
    versions = (await ok(node, "GET", "secret/metadata/gone"))["versions"]
    assert [versions[str(n)]["destroyed"] for n in (1, 2, 3, 4)] == [False, True, True, True]
    assert [bool(versions[str(n)]["deletion_time"]) for n in (1, 2, 3, 4)] == [False, False, True, False]
    query = "SELECT version FROM kv_versions JOIN kv_secrets USING (id) WHERE path = 'gone' ORDER BY version"
    left = await sql(node.settings.database_url, query)
    assert [row["version"] for row in left] == [1]
    await put(node, "gone", {"n": 5})
    assert (await ok(node, "GET", "secret/data/gone"))["data"] == {"n": 5}
    for verb in ("delete", "undelete", "destroy"):
        assert await status(node, "POST", f"secret/{verb}/none", {"versions": [1]}) == 204
        for wrong in ({}, {"versions": []}, {"versions": ["x"]}, {"versions": [True]}, {"versions": [1.5]}):
            assert await status(node, "POST", f"secret/{verb}/gone", wrong) == 400, (verb, wrong)
        too_many = {"versions": list(range(1001))}
        assert await status(node, "POST", f"secret/{verb}/gone", too_many) == 400
    await ledger_is_good(node)


@SHARING
async def test_what_the_ledger_says_of_it(shared_node: Node) -> None:
    """Every change has an intent and an outcome with the head's revision, and the versions in clear."""
    node = shared_node
    await put(node, "told", {"n": 1}, {"n": 2})
    await ok(node, "POST", "secret/destroy/told", {"versions": [1]})
    found = await entries(node.settings.database_url, operation="kv.destroy", path="secret/destroy/told")
    assert [entry["kind"] for entry in found] == ["intent", "outcome"]
    assert found[0]["detail"]["body"] == {"versions": [1]}
    answer = found[1]["detail"]["answer"]
    assert (answer["versions"], answer["version"]) == ([1], 2)
    head = (await sql(node.settings.database_url, "SELECT * FROM kv_secrets WHERE path = 'told'"))[0]
    assert found[1]["detail"]["written"] == [
        {"table": "kv_secrets", "key": head["id"], "revision": 3, "mac": head["mac"].hex()}
    ]


async def test_how_many_versions_are_kept(node: Node) -> None:
    """The secret's number counts before the mount's, the mount's before ten; older ones are gone for good."""

    async def kept(path: str) -> list[int]:
        metadata = await ok(node, "GET", f"secret/metadata/{path}")
        rows = await sql(
            node.settings.database_url,
            """SELECT version FROM kv_versions JOIN kv_secrets USING (id)
               WHERE path = $1 ORDER BY version""",
            path,
        )
        assert sorted(map(int, metadata["versions"])) == [row["version"] for row in rows]
        return [row["version"] for row in rows]

    await put(node, "ten", *({"n": n} for n in range(12)))
    assert await kept("ten") == list(range(3, 13))
    assert (await ok(node, "GET", "secret/metadata/ten"))["oldest_version"] == 3
    await ok(node, "POST", "secret/config", {"max_versions": 2})
    await ok(node, "POST", "secret/metadata/four", {"max_versions": 4})
    for path in ("two", "four"):
        await put(node, path, *({"n": n} for n in range(6)))
    assert await kept("two") == [5, 6]
    assert await kept("four") == [3, 4, 5, 6]
    await put(node, "ten", {"n": 13})
    assert await kept("ten") == [12, 13]
    assert await status(node, "GET", "secret/data/ten?version=11") == 404
    for limit in (-1, 1001, "x", True):
        for path in ("config", "metadata/two"):
            assert await status(node, "POST", f"secret/{path}", {"max_versions": limit}) == 400, (path, limit)


async def test_versions_that_time_deletes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version whose time is over reads as deleted, from memory too, and can be brought back."""
    ahead = node.clock.move
    await ok(node, "POST", "secret/metadata/a", {"delete_version_after": "50s"})
    await ok(node, "POST", "secret/config", {"delete_version_after": "100s"})
    await put(node, "a", {"n": 1})
    await put(node, "b", {"n": 1})
    assert (await ok(node, "GET", "secret/data/a"))["metadata"]["deletion_time"] != ""
    ahead(60)
    gone = await node.call("GET", "secret/data/a")
    assert (gone.status_code, gone.json()["data"]["data"]) == (404, None)
    assert await status(node, "GET", "secret/data/a?version=1") == 404
    assert await status(node, "GET", "secret/subkeys/a") == 404
    assert await status(node, "PATCH", "secret/data/a", {"data": {}}) == 404
    assert await status(node, "GET", "secret/data/b") == 200
    await ok(node, "POST", "secret/undelete/a", {"versions": [1]})
    assert (await ok(node, "GET", "secret/data/a"))["data"] == {"n": 1}
    ahead(115)
    assert [await status(node, "GET", f"secret/data/{path}") for path in "ab"] == [404, 404]
    await ok(node, "POST", "secret/config", {"delete_version_after": "-1s"})
    assert (await ok(node, "GET", "secret/config"))["delete_version_after"] == "-1s"
    await put(node, "a", {"n": 2})
    assert (await ok(node, "GET", "secret/data/a"))["metadata"]["deletion_time"] == ""


@SHARING
async def test_a_deletion_ahead_of_time(shared_node: Node) -> None:
    """A version that time would delete later can be deleted now."""
    node = shared_node
    await ok(node, "POST", "secret/metadata/early", {"delete_version_after": "1h"})
    await put(node, "early", {"n": 1}, {"n": 2})
    await ok(node, "DELETE", "secret/data/early")
    await ok(node, "POST", "secret/delete/early", {"versions": [1]})
    assert [await status(node, "GET", f"secret/data/early?version={n}") for n in (1, 2)] == [404, 404]
