"""Mounts: what is there from the beginning, what can be added, and what clients are told of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from secrethub.engines import unmounting
from secrethub.engines.engine import Fence
from secrethub.operations.tidy import tidy
from secrethub.storage.authority import MOUNTS
from tests.gateway.behind import sql
from tests.gateway.conftest import SHARING, Node, native


async def test_default_mounts(node: Node) -> None:
    """Everything that init mounts is listed, with what clients look for, at the top level too."""
    answer = (await node.call("GET", "sys/mounts")).json()
    assert set(answer["data"]) == {
        *("agents/", "cubbyhole/", "pki/", "secret/", "secrets/", "sys/"),
        *("secrets/dynamic/aws/", "secrets/dynamic/postgresql/", "secrets/dynamic/redis/"),
    }
    secret = answer["data"]["secret/"]
    assert answer["secret/"] == secret
    assert (secret["type"], secret["options"]) == ("kv", {"version": "2"})
    assert answer["data"]["secrets/"]["type"] == "flat"
    assert set(secret) >= {"accessor", "config", "description", "local", "seal_wrap", "uuid"}
    auth = (await node.call("GET", "sys/auth")).json()["data"]
    assert {path: shown["type"] for path, shown in auth.items()} == {
        f"{kind}/": kind for kind in ("approle", "cert", "token", "userpass")
    }


@SHARING
async def test_a_new_store_is_a_store_of_its_own(shared_node: Node) -> None:
    """A mounted store keeps its secrets apart from others with the same path."""
    node = shared_node
    made = await node.call(
        "POST", "sys/mounts/team/kv", json={"type": "kv", "options": {"version": 2}, "description": "ours"}
    )
    assert made.status_code == 204
    assert (await node.call("POST", "sys/mounts/other", json={"type": "kv-v2"})).status_code == 204
    for mount, value in (("team/kv", 1), ("other", 2), ("secret", 3)):
        written = await node.call("POST", f"{mount}/data/same/path", json={"data": {"v": value}})
        assert written.status_code == 200
    for mount, value in (("team/kv", 1), ("other", 2), ("secret", 3)):
        read = await node.call("GET", f"{mount}/data/same/path")
        assert read.json()["data"]["data"] == {"v": value}
        assert (await node.call("LIST", f"{mount}/metadata")).json()["data"]["keys"] == ["same/"]
    shown = (await node.call("GET", "sys/mounts")).json()["data"]["team/kv/"]
    assert shown["description"] == "ours"
    token = await node.token("team", native("team/kv/**"))
    assert (await node.call("GET", "team/kv/data/same/path", token)).status_code == 200
    assert (await node.call("GET", "other/data/same/path", token)).status_code == 403


@SHARING
async def test_paths_that_cannot_be_mounted(shared_node: Node) -> None:
    """Nothing is mounted above, below or beside what has the path, nor where it could not be granted."""
    node = shared_node
    before = set((await node.call("GET", "sys/mounts")).json()["data"])
    await node.call("POST", "sys/mounts/a/b", json={"type": "kv-v2"})
    for path in (
        "secret",
        "secret/below",
        "secrets/below",
        "secrets/dynamic/below",
        "a",
        "a/b",
        "a/b/c",
        "sys/x",
        "auth/x",
        "auth",
        "agents/x",
        "pki/x",
        "cubbyhole",
        "cubbyhole/x",
        "identity/x",
        "w*",
        "w/+/x",
        "+",
        "w/%2e%2e/x",
        "w//x",
        "w/tune",
        "w%00",
        "w%0ax",
        "w%e2%80%8b",
    ):
        refused = await node.call("POST", f"sys/mounts/{path}", json={"type": "kv-v2"})
        assert refused.status_code == 400, (path, refused.text)
    assert set((await node.call("GET", "sys/mounts")).json()["data"]) == before | {"a/b/"}


@SHARING
async def test_kinds_that_cannot_be_mounted(shared_node: Node) -> None:
    """Only what works can be mounted, and it says so."""
    node = shared_node
    for body in (
        {},
        {"type": ""},
        {"type": "mysql"},
        {"type": "kv-v1", "options": {"version": "2"}},
        {"type": "kv-v2", "options": {"version": "1"}},
        {"type": "kv", "options": {"version": "2", "max_versions": "3"}},
        {"type": "generic"},
        {"type": "kv", "options": {"version": 3}},
        {"type": "kv-v2", "description": "a\u0000b"},
        {"type": "kv-v2", "description": "x" * 5000},
        {"type": ["kv"]},
        {"type": "flat"},
        {"type": "system"},
        {"type": "kv", "options": "version=2"},
    ):
        refused = await node.call("POST", "sys/mounts/new", json=body)
        assert refused.status_code == 400, (body, refused.text)
    assert (await node.call("GET", "new/data/x")).status_code == 404


@SHARING
@pytest.mark.parametrize(
    ("body", "version"),
    [
        ({"type": "kv"}, "1"),
        ({"type": "kv", "options": {"version": None}}, "1"),
        ({"type": "kv", "options": {"version": 1}}, "1"),
        ({"type": "kv-v1"}, "1"),
        ({"type": "kv", "options": {"version": 2}}, "2"),
        ({"type": "kv-v2", "options": {"version": "2"}}, "2"),
    ],
)
async def test_versions_of_key_value_stores(shared_node: Node, body: dict[str, Any], version: str) -> None:
    """A store has the version that is asked for, the first one if none is, as in Vault."""
    assert (await shared_node.call("POST", "sys/mounts/new", json=body)).status_code == 204
    shown = (await shared_node.call("GET", "sys/internal/ui/mounts/new/x")).json()["data"]
    assert (shown["type"], shown["options"]) == ("kv", {"version": version})
    assert (await shared_node.call("DELETE", "sys/mounts/new")).status_code == 204


async def test_the_store_of_the_flat_view_has_versions(node: Node) -> None:
    """Only version 2 can be mounted where the flat view looks."""
    assert (await node.call("DELETE", "sys/mounts/secret")).status_code == 204
    refused = await node.call("POST", "sys/mounts/secret", json={"type": "kv"})
    assert "secrets/ is a view" in refused.json()["errors"][0]
    assert (await node.call("POST", "sys/mounts/secret", json={"type": "kv-v2"})).status_code == 204


@SHARING
async def test_settings_of_a_new_mount(shared_node: Node) -> None:
    """What clients send without being asked is taken, leases' limits are kept, anything else is refused."""
    node = shared_node
    empty = {
        "description": None,
        "options": None,
        "local": False,
        "seal_wrap": "false",
        "external_entropy_access": False,
        "plugin_name": None,
        "plugin_version": "",
        "wrapped": None,
        "config": {
            "options": None,
            "default_lease_ttl": "",
            "max_lease_ttl": "",
            "force_no_cache": False,
            "listing_visibility": "hidden",
            "passthrough_request_headers": [],
        },
    }
    assert (await node.call("POST", "sys/mounts/plain", json={"type": "kv-v2", **empty})).status_code == 204
    limits = {"default_lease_ttl": "1h", "max_lease_ttl": 7200}
    made = await node.call("POST", "sys/mounts/limited", json={"type": "kv-v2", "config": limits})
    assert made.status_code == 204
    shown = (await node.call("GET", "sys/mounts")).json()["data"]
    for path, ttls in (("plain/", (0, 0)), ("limited/", (3600, 7200))):
        config = shown[path]["config"]
        assert (config["default_lease_ttl"], config["max_lease_ttl"]) == ttls
    for wrong in (
        {"local": True},
        {"seal_wrap": "true"},
        {"external_entropy_access": True},
        {"plugin_name": "mine"},
        {"plugin_version": "v1.0.0"},
        {"config": {"force_no_cache": True}},
        {"config": {"listing_visibility": "unauth"}},
        {"config": {"passthrough_request_headers": "X-A"}},
        {"config": {"audit_non_hmac_request_keys": ["password"]}},
        {"config": {"token_type": "batch"}},
        {"config": {"options": {"version": "2"}}},
        {"config": {"description": "here"}},
        {"config": {"other": 1}},
        {"config": {"default_lease_ttl": "soon"}},
        {"config": {"default_lease_ttl": "2h", "max_lease_ttl": "1h"}},
        {"config": {"default_lease_ttl": "769h"}},
        {"config": []},
    ):
        refused = await node.call("POST", "sys/mounts/wrong", json={"type": "kv-v2", **wrong})
        assert refused.status_code == 400, (wrong, refused.text)
    assert "wrong/" not in (await node.call("GET", "sys/mounts")).json()["data"]


@SHARING
async def test_tuning(shared_node: Node) -> None:
    """A mount's description and limits are changed and told; what is not understood changes nothing."""
    node = shared_node
    await node.call("POST", "sys/mounts/tuned/b", json={"type": "kv-v2", "description": "old"})
    before = (await node.call("GET", "sys/mounts/tuned/b/tune")).json()
    told = {"description": "old", "default_lease_ttl": 2764800, "max_lease_ttl": 2764800}
    told |= {"force_no_cache": False, "options": {"version": "2"}}
    assert before["data"] == told
    assert before["description"] == "old"
    for body, change in (
        ({}, {}),
        ({"description": "new", "max_lease_ttl": "10h"}, {"description": "new", "max_lease_ttl": 36000}),
        ({"default_lease_ttl": 60, "options": {"version": 2}, "token_type": None}, {"default_lease_ttl": 60}),
        ({"default_lease_ttl": "", "max_lease_ttl": "20h", "other": None}, {"max_lease_ttl": 72000}),
        ({"max_lease_ttl": "system", "description": ""}, {"max_lease_ttl": 2764800, "description": ""}),
    ):
        tuned = await node.call("POST", "sys/mounts/tuned/b/tune", json=body)
        assert tuned.status_code == 204, (body, tuned.text)
        told |= change
        assert (await node.call("GET", "sys/mounts/tuned/b/tune/")).json()["data"] == told
    for wrong in (
        {"default_lease_ttl": "2h", "max_lease_ttl": "1h"},
        {"default_lease_ttl": -1},
        {"max_lease_ttl": True},
        {"options": {"version": "1"}},
        {"options": {"other": "x"}},
        {"type": "kv"},
        {"path": "c"},
        {"listing_visibility": "unauth"},
        {"description": "a\u0000"},
    ):
        refused = await node.call("POST", "sys/mounts/tuned/b/tune", json=wrong)
        assert refused.status_code == 400, (wrong, refused.text)
    assert (await node.call("GET", "sys/mounts/tuned/b/tune")).json()["data"] == told
    one = (await node.call("GET", "sys/mounts/tuned/b")).json()["data"]
    assert one == (await node.call("GET", "sys/mounts")).json()["data"]["tuned/b/"]
    assert one["config"] == {"default_lease_ttl": 60, "max_lease_ttl": 0, "force_no_cache": False}


@SHARING
async def test_what_cannot_be_tuned(shared_node: Node) -> None:
    """What is not there is no mount, and limits are not taken where nothing would keep them."""
    node = shared_node
    before = len((await node.call("GET", "sys/mounts")).json()["data"])
    for path in ("none", "none/b", "auth/none", "tune"):
        for method, tail in (("GET", ""), ("GET", "/tune"), ("POST", "/tune")):
            refused = await node.call(method, f"sys/mounts/{path}{tail}", json={})
            assert refused.status_code == 400, (method, path, tail)
    for path in ("sys", "agents", "cubbyhole"):
        refused = await node.call("POST", f"sys/mounts/{path}/tune", json={"max_lease_ttl": "1h"})
        assert refused.status_code == 400, path
    assert (await node.call("GET", "sys/mounts/sys/tune")).status_code == 200
    assert (await node.call("POST", "sys/mounts/pki/tune", json={"max_lease_ttl": "1h"})).status_code == 400
    assert (await node.call("POST", "sys/mounts/pki/tune", json={"description": "d"})).status_code == 204
    assert (await node.call("GET", "sys/mounts/pki")).json()["data"]["description"] == "d"
    assert len((await node.call("GET", "sys/mounts")).json()["data"]) == before


async def test_a_removed_mount_takes_its_secrets_along(node: Node) -> None:
    """After a mount is removed nothing of it is left, and a new one at its path begins empty."""
    url = node.settings.database_url
    for path in ("team", "other"):
        assert (await node.call("POST", f"sys/mounts/{path}", json={"type": "kv-v2"})).status_code == 204
    for number in range(5):
        for path in (f"team/data/{number}", f"team/data/{number}", f"other/data/{number}"):
            assert (await node.call("POST", path, json={"data": {"n": number}})).status_code == 200
    assert (await node.call("GET", "team/data/1")).status_code == 200
    # Twice as many as go in one transaction.
    await sql(
        url,
        """INSERT INTO kv_secrets
           SELECT store, 'copy/' || n, id || n, revision, current_version, oldest_version, max_versions,
                  cas_required, delete_version_after, custom_metadata, created_at, updated_at, versions, mac
           FROM kv_secrets, generate_series(1, $1::int) AS n WHERE path = '1' AND current_version = 2""",
        2 * unmounting._BATCH,
    )
    for _ in range(2):
        gone = await node.call("DELETE", "sys/mounts/team")
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await node.call("GET", "team/data/1")).status_code == 404
        assert (await node.call("POST", "team/data/1", json={"data": {}})).status_code == 404
        assert "team/" not in (await node.call("GET", "sys/mounts")).json()["data"]
    assert [row["n"] for row in await sql(url, "SELECT count(*) AS n FROM kv_secrets")] == [5]
    assert [row["n"] for row in await sql(url, "SELECT count(*) AS n FROM kv_versions")] == [5]
    assert await sql(url, "SELECT 1 FROM mounts WHERE key = 'team/'") == []
    assert (await node.call("POST", "sys/mounts/team", json={"type": "kv-v2"})).status_code == 204
    assert (await node.call("GET", "team/data/1")).status_code == 404
    written = await node.call("POST", "team/data/1", json={"data": {"new": True}})
    assert written.json()["data"]["version"] == 1
    assert (await node.call("GET", "team/data/1")).json()["data"]["data"] == {"new": True}
    assert (await node.call("GET", "other/data/1")).json()["data"]["data"] == {"n": 1}


@pytest.mark.parametrize("finished_by", ["the next tidying", "the same request"])
async def test_an_interrupted_removal_goes_on(node: Node, finished_by: str) -> None:
    """A mount whose removal has begun answers nobody, and its path is free when it is done."""
    core = node.process.core
    await node.call("POST", "sys/mounts/team", json={"type": "kv-v2"})
    await node.call("POST", "team/data/a", json={"data": {}})
    await core.ledger.look()
    fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch, written=[])
    async with core.authority.change(fence) as change:
        row = await change.get(MOUNTS, "team/")
        assert row is not None
        await change.put(MOUNTS, "team/", {**row.body, "leaving": True})
    assert (await node.call("GET", "team/data/a")).status_code == 404
    assert (await node.call("GET", "sys/mounts/team")).status_code == 400
    assert (await node.call("POST", "sys/mounts/team/tune", json={})).status_code == 400
    for path in ("team", "team/below"):
        refused = await node.call("POST", f"sys/mounts/{path}", json={"type": "kv-v2"})
        assert "still being removed" in refused.json()["errors"][0]
    if finished_by == "the same request":
        assert (await node.call("DELETE", "sys/mounts/team")).status_code == 204
    else:
        await tidy(core)
    assert await sql(node.settings.database_url, "SELECT 1 FROM kv_secrets") == []
    assert (await node.call("POST", "sys/mounts/team", json={"type": "kv-v2"})).status_code == 204


async def test_what_cannot_be_removed(node: Node) -> None:
    """What agents, listeners and tokens live by stays; the store at secret/ may go, as in Vault."""
    await node.call("POST", "secrets/a", json={"data": {}})
    for path in ("sys", "agents", "pki", "secrets", "auth/token", "auth/approle", "cubbyhole", "identity/x"):
        refused = await node.call("DELETE", f"sys/mounts/{path}")
        assert refused.status_code == 400, path
        assert refused.json()["errors"] == [f"cannot unmount {path}/"]
    assert len((await node.call("GET", "sys/mounts")).json()["data"]) == 9
    for path in ("none", "secret/data", "secret/tune"):
        assert (await node.call("DELETE", f"sys/mounts/{path}")).status_code == 204, path
    assert (await node.call("GET", "secrets/a")).status_code == 200
    assert (await node.call("DELETE", "sys/mounts/secret")).status_code == 204
    assert (await node.call("GET", "secrets/a")).status_code == 404
    assert (await node.call("POST", "sys/mounts/secret", json={"type": "kv-v2"})).status_code == 204
    assert (await node.call("GET", "secrets/a")).status_code == 404
    assert (await node.call("POST", "secrets/a", json={"data": {}})).json()["data"]["version"] == 1


@SHARING
async def test_mounting_the_same_path_twice_at_once(shared_node: Node) -> None:
    """Of requests for overlapping paths one wins."""
    node = shared_node
    paths = ["race", "race/a", "race/a/b", "race"]
    answers = await asyncio.gather(
        *(node.call("POST", f"sys/mounts/{path}", json={"type": "kv-v2"}) for path in paths)
    )
    assert sorted(answer.status_code for answer in answers) == [204, 400, 400, 400]


@SHARING
async def test_what_clients_ask_before_every_call(shared_node: Node) -> None:
    """sys/internal/ui/mounts/<path> tells the mount to those who may do something below it, nobody else."""
    node = shared_node
    for path, mount, kind in (
        ("secret/a/b", "secret/", "kv"),
        ("secret", "secret/", "kv"),
        ("secrets/a", "secrets/", "flat"),
        ("pki/x", "pki/", "pki"),
    ):
        shown = (await node.call("GET", f"sys/internal/ui/mounts/{path}")).json()["data"]
        assert (shown["path"], shown["type"]) == (mount, kind)
    assert shown["options"] is None
    shown = (await node.call("GET", "sys/internal/ui/mounts/secret/x")).json()
    assert shown["data"]["options"]["version"] == "2"
    assert shown["path"] == "secret/"
    token = await node.token("reader", {"path": {"secret/data/a": {"capabilities": ["read"]}}})
    natively = await node.token("native", native("secrets/a"))
    for caller in (token, natively):
        for path in ("secret/a", "secrets/a"):
            shown = await node.call("GET", f"sys/internal/ui/mounts/{path}", caller)
            assert shown.status_code == 200, path
    hidden = await node.call("GET", "sys/internal/ui/mounts/pki/a", token)
    missing = await node.call("GET", "sys/internal/ui/mounts/nothing/a", token)
    assert hidden.status_code == missing.status_code == 403
    assert hidden.json()["errors"] == missing.json()["errors"]
    listed = (await node.call("GET", "sys/internal/ui/mounts", token)).json()["data"]
    assert {"secret/", "secrets/"} <= set(listed["secret"])
    assert "pki/" not in listed["secret"]


async def test_keys_do_not_shadow_dynamic_engines(node: Node) -> None:
    """Below secrets/dynamic/ no key can be written, by neither of its names."""
    for path in ("secret/data/dynamic/postgresql/creds/app", "secret/data/dynamic", "secrets/dynamic"):
        refused = await node.call("POST", path, json={"data": {}})
        assert refused.status_code == 400, path
    assert (await node.call("POST", "secrets/dynamic/a", json={"data": {}})).status_code in {404, 405}
    assert (await node.call("POST", "secrets/dynamics", json={"data": {}})).status_code == 200
