"""Secrets engines move: what is in them comes along, and nothing answers where they were."""

from __future__ import annotations

import asyncio

from tests.gateway.behind import ledger_is_good, sql
from tests.gateway.conftest import Node, native
from tests.gateway.pair import second
from tests.gateway.second_process import Second
from tests.gateway.shell import Cli, cli

__all__ = ["cli", "second"]  # the fixtures


async def mounted(node: Node, path: str) -> None:
    """Mount a store of the second version."""
    assert (await node.call("POST", f"sys/mounts/{path}", json={"type": "kv-v2"})).status_code == 204


async def test_everything_comes_along(node: Node, second: Second) -> None:
    """Values, versions and settings are at the new path at once on every node, and nowhere else."""
    await mounted(node, "team")
    for n in range(3):
        await node.call("POST", "team/data/app/db", json={"data": {"n": n}})
    await node.call("POST", "team/config", json={"max_versions": 7})
    # Both nodes keep the newest version.
    for process in (node, second):
        assert (await process.call("GET", "team/data/app/db", node.root)).status_code == 200
    moved = await node.call("POST", "sys/remount", json={"from": "team", "to": "teams/blue/"})
    assert moved.status_code == 200
    assert "policies" in moved.json()["warnings"][0]
    for process in (second, node):
        assert (await process.call("GET", "team/data/app/db", node.root)).status_code == 404
        found = await process.call("GET", "teams/blue/data/app/db", node.root)
        assert (found.json()["data"]["data"], found.json()["data"]["metadata"]["version"]) == ({"n": 2}, 3)
        old = await process.call("GET", "teams/blue/data/app/db?version=1", node.root)
        assert old.json()["data"]["data"] == {"n": 0}
    assert (await node.call("GET", "teams/blue/config")).json()["data"]["max_versions"] == 7
    status = await node.call("GET", f"sys/remount/status/{moved.json()['data']['migration_id']}")
    assert status.json()["data"]["migration_info"] == {
        "source_mount": "team/",
        "target_mount": "teams/blue/",
        "status": "success",
    }
    # A store that takes the old place is another one, whatever was known of secrets with the same names.
    await mounted(node, "team")
    for process in (second, node):
        assert (await process.call("GET", "team/data/app/db", node.root)).status_code == 404
    assert (await second.call("POST", "team/data/app/db", node.root, json={"data": {"new": 1}})).is_success
    assert (await node.call("GET", "team/data/app/db")).json()["data"]["data"] == {"new": 1}
    changed = await second.call("POST", "teams/blue/data/app/db", node.root, json={"data": {"n": 3}})
    assert changed.json()["data"]["version"] == 4
    assert (await node.call("GET", "teams/blue/data/app/db")).json()["data"]["data"] == {"n": 3}
    await ledger_is_good(node)


async def test_writers_while_it_moves(node: Node) -> None:
    """A write is either refused or is found at the new path: none is acknowledged and lost."""
    await mounted(node, "busy")
    acknowledged: list[int] = []

    async def write(n: int) -> None:
        answer = await node.call("POST", f"busy/data/s{n}", json={"data": {"n": n}})
        if answer.is_success:
            acknowledged.append(n)
        else:
            assert answer.status_code in {404, 503}

    writers = [asyncio.create_task(write(n)) for n in range(60)]
    await asyncio.sleep(0)
    assert (await node.call("POST", "sys/remount", json={"from": "busy", "to": "calm"})).is_success
    await asyncio.gather(*writers)
    keys = (await node.call("LIST", "calm/metadata")).json()["data"]["keys"] if acknowledged else []
    assert sorted(keys) == sorted(f"s{n}" for n in acknowledged)


async def test_rights_do_not_come_along(node: Node) -> None:
    """Who could read at the old path reads nothing at the new one; who may mount may not move."""
    await mounted(node, "mine")
    await node.call("POST", "mine/data/x", json={"data": {"a": 1}})
    reader = await node.token("reader", native("mine/**", "read"))
    assert (await node.call("GET", "mine/data/x", reader)).status_code == 200
    mover = await node.token("mover", native("sys/**", "create", "read", "update", "delete"))
    body = {"from": "mine", "to": "theirs"}
    assert (await node.call("POST", "sys/remount", mover, json=body)).status_code == 403
    assert (await node.call("POST", "sys/remount", json=body)).is_success
    assert (await node.call("GET", "theirs/data/x", reader)).status_code == 403
    assert (await node.call("GET", "mine/data/x", reader)).status_code in {403, 404}


REFUSED: tuple[tuple[object, object], ...] = (
    ("secret", "elsewhere"),
    ("secrets", "elsewhere"),
    ("pki", "elsewhere"),
    ("sys", "elsewhere"),
    ("cubbyhole", "elsewhere"),
    ("auth/approle", "elsewhere"),
    ("auth/approle", "auth"),
    ("auth/approle", "auth/userpass"),
    ("auth/approle", "auth/token/x"),
    ("auth/approle", "auth/approle/x"),
    ("auth/approle", "auth/approle"),
    ("auth/approle", "auth/a*"),
    ("auth/approle", "auth/../sys/x"),
    ("auth/token", "auth/x"),
    ("auth/nothing", "auth/x"),
    ("auth", "auth/x"),
    ("box", "auth/box"),
    ("box", "sys/box"),
    ("box", "secret"),
    ("box", "secrets/box"),
    ("box", "secret/box"),
    ("box", "pki/box"),
    ("box", "box/inner"),
    ("box", "box"),
    ("box", "b*x"),
    ("box", "b/+/x"),
    ("box", "b/../secret"),
    ("box", "b/tune"),
    ("box", ""),
    ("", "elsewhere"),
    ("nothing", "elsewhere"),
    ("box", None),
    (["box"], "elsewhere"),
)


async def test_moves_that_are_refused(node: Node) -> None:
    """What others live by stays, nothing takes a place that is taken or reserved, and nothing is changed."""
    await mounted(node, "box")
    mounts = "SELECT key, revision FROM mounts ORDER BY key"
    before = await sql(node.settings.database_url, mounts)
    for source, to in REFUSED:
        refused = await node.call("POST", "sys/remount", json={"from": source, "to": to})
        assert refused.status_code == 400, (source, to, refused.text)
    assert await sql(node.settings.database_url, mounts) == before
    unknown = await node.call("GET", "sys/remount/status/00000000-0000-4000-8000-000000000000")
    assert unknown.status_code == 400


async def test_by_command_line(cli: Cli) -> None:
    """``mount move`` says where it is now, and warns of policies."""
    await cli("mount", "enable", "kv", "--path", "old")
    said = await cli("mount", "move", "old", "new/place")
    assert said == "The secrets engine at old/ is at new/place/ now.\n"
    assert "new/place/" in await cli.json("mount", "list")
    assert "no secrets engine" in await cli("mount", "move", "old", "x", code=1)
