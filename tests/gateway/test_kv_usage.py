"""Who read a secret, and which secrets nobody reads: what the ledger says."""

from __future__ import annotations

import asyncio

from secrethub.storage.kv_usage import SCANNED
from tests.gateway.behind import sql
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, put, status


async def test_who_read_a_secret(node: Node) -> None:
    """Every successful read is told, the newest first, page by page; refused and other requests are not."""
    await put(node, "a", {"n": 1}, {"n": 2})
    await put(node, "b", {"n": 1})
    token = await node.token("app", native("secrets/a"), display_name="app")
    for query in ("", "?version=1", ""):
        assert await status(node, "GET", f"secrets/a{query}", token=token) == 200
    await ok(node, "GET", "secret/compare/a")
    await ok(node, "GET", "secret/metadata/a")
    await ok(node, "GET", "secret/data/b")
    assert await status(node, "GET", "secret/data/b", token=token) == 403
    assert await status(node, "GET", "secret/data/a?version=9", token=token) == 404
    shown = await ok(node, "GET", "secret/readers/a")
    told = [(read["operation"], read["version"]) for read in shown["reads"]]
    assert told == [("kv.compare", 2), ("kv.read", 2), ("kv.read", 1), ("kv.read", 2)]
    one = shown["reads"][1]
    assert one["actor"].endswith(":token-app")
    assert (one["client"], one["door"]) == ("127.0.0.1", "http")
    assert shown["next"] == ""
    paged, after = [], ""
    while True:
        page = await ok(node, "GET", f"secret/readers/a?limit=1&after={after}")
        paged += page["reads"]
        after = page["next"]
        if not after:
            break
    assert paged == shown["reads"]
    assert (await ok(node, "GET", "secret/readers/none"))["reads"] == []
    for wrong in ("after=x", "after=1.2", "limit=-1", "after=1.a.x"):
        assert await status(node, "GET", f"secret/readers/a?{wrong}") == 400, wrong


async def test_a_forged_read_is_refused(node: Node) -> None:
    """An entry that was edited, or put into the ledger by hand, is not shown as a read."""
    url = node.settings.database_url
    await put(node, "a", {"n": 1})
    await ok(node, "GET", "secret/data/a")
    await sql(url, "UPDATE audit_entries SET actor = 'token:x:innocent' WHERE operation = 'kv.read'")
    edited = await node.call("GET", "secret/readers/a")
    assert (edited.status_code, edited.json()["code"]) == (500, "integrity_failure")
    await sql(
        url,
        """INSERT INTO audit_entries
           SELECT stream, number + 100000, at, kind, request_id, 'token:x:framed', operation, 'secret/data/b',
                  outcome, reason, client, door, detail, hash, signature
           FROM audit_entries WHERE operation = 'kv.read'""",
    )
    assert await status(node, "GET", "secret/readers/b") == 500


async def test_what_nobody_reads(node: Node) -> None:
    """Secrets older than the time that nobody read meanwhile are listed, page by page."""
    ahead = node.clock.move
    count = SCANNED + 8
    await asyncio.gather(*(put(node, f"x/{number:03}", {}) for number in range(count)))
    for number in ("000", "003", "507"):
        await ok(node, "GET", f"secret/data/x/{number}")
    ahead(3600)
    await put(node, "x/new", {})
    await ok(node, "GET", "secret/data/x/003")
    # The ledger has a clock of its own.
    await sql(
        node.settings.database_url,
        """UPDATE audit_entries SET at = at + 3600000000
           WHERE path = 'secret/data/x/003' AND operation = 'kv.read'""",
    )

    async def unused(since: str, limit: int = 100) -> dict[str, bool]:
        found: dict[str, bool] = {}
        after = ""
        while True:
            page = await ok(node, "GET", f"secret/unused/x?since={since}&limit={limit}&after={after}")
            assert len(page["keys"]) <= limit
            found |= {path: info["last_read"] is not None for path, info in page["key_info"].items()}
            after = page["next"]
            assert "/" not in after, "a path in clear"
            if not after:
                return found

    expected = {f"x/{n:03}": n in {0, 507} for n in range(count) if n != 3}
    assert await unused("30m") == await unused("30m", 300) == expected
    assert await unused("2h") == {}
    assert (await ok(node, "GET", "secret/unused?since=30m&limit=3"))["keys"] == ["x/000", "x/001", "x/002"]
    assert await status(node, "GET", "secret/unused?since=soon") == 400


async def test_a_store_that_moved(node: Node) -> None:
    """What was read before a store moved is known, and not what another store at the same path gives."""

    async def read(path: str) -> None:
        await ok(node, "GET", path)

    async def told(store: str) -> list[int | None]:
        return [one["version"] for one in (await ok(node, "GET", f"{store}/readers/x"))["reads"]]

    for version in (1, 2):
        await ok(node, "POST", "sys/mounts/old", {"type": "kv-v2"})
        for _ in range(version):
            await ok(node, "POST", "old/data/x", {"data": {}})
        await read("old/data/x")
        await ok(node, "POST", "sys/remount", {"from": "old", "to": f"new{version}"})
        await read(f"new{version}/data/x?version=1")
    await ok(node, "POST", "sys/remount", {"from": "new2", "to": "newest"})
    await read("newest/data/x")
    assert await told("new1") == [1, 1]
    assert await told("newest") == [2, 1, 2]
    await ok(node, "POST", "sys/mounts/new2", {"type": "kv-v2"})
    await ok(node, "POST", "new2/data/x", {"data": {}})
    assert await told("new2") == []
    for store, last in (("new1", True), ("newest", True), ("new2", False)):
        found = await ok(node, "GET", f"{store}/unused?since=0s")
        assert (found["key_info"]["x"]["last_read"] is not None) is last, store


async def test_who_may_know(node: Node) -> None:
    """To hear who reads takes sudo at the secret, and to see it in a list at all."""
    await put(node, "a/x", {})
    await put(node, "a/y", {})
    await ok(node, "GET", "secret/data/a/x")
    sudo = {"capabilities": ["read", "sudo"]}
    endpoints = {"secret/readers/*": sudo, "secret/unused/*": sudo}
    listing = {"secret/metadata/a/*": {"capabilities": ["list"]}}
    deny = {"capabilities": ["deny"]}
    for name, policy, readers, unused in (
        ("none", {"path": {"secret/data/*": {"capabilities": ["read"]}}}, 403, None),
        ("read", native("secrets/a/**", capabilities=("read", "list")), 403, None),
        ("sudo", native("secrets/a/**", capabilities=("read", "list", "sudo")), 200, ["a/x", "a/y"]),
        ("blind", {"path": endpoints}, 403, []),
        ("both", {"path": endpoints | listing}, 200, ["a/x", "a/y"]),
        ("hidden", {"path": endpoints | listing | {"secret/metadata/a/x": deny}}, 403, ["a/y"]),
        ("but", {"path": endpoints | listing | {"secret/readers/a/x": deny}}, 403, ["a/y"]),
    ):
        token = await node.token(name, policy)
        assert await status(node, "GET", "secret/readers/a/x", token=token) == readers, name
        answer = await node.call("GET", "secret/unused/a?since=0s", token)
        shown = answer.json()["data"]["keys"] if answer.status_code == 200 else None
        assert shown == unused, (name, answer.text)
