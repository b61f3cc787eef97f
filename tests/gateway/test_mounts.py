"""Mounts: what is there from the beginning, what can be added, and what clients are told of them."""

from __future__ import annotations

import asyncio

from tests.gateway.conftest import Node, native


async def test_default_mounts(node: Node) -> None:
    """Everything that init mounts is listed, with what clients look for, at the top level too."""
    answer = (await node.call("GET", "sys/mounts")).json()
    assert set(answer["data"]) == {"agents/", "pki/", "secret/", "secrets/", "sys/"}
    secret = answer["data"]["secret/"]
    assert answer["secret/"] == secret
    assert (secret["type"], secret["options"]) == ("kv", {"version": "2"})
    assert answer["data"]["secrets/"]["type"] == "flat"
    assert set(secret) >= {"accessor", "config", "description", "local", "seal_wrap", "uuid"}
    auth = (await node.call("GET", "sys/auth")).json()["data"]
    assert {path: shown["type"] for path, shown in auth.items()} == {"approle/": "approle", "token/": "token"}


async def test_a_new_store_is_a_store_of_its_own(node: Node) -> None:
    """A mounted store keeps its secrets apart from others with the same path."""
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


async def test_paths_that_cannot_be_mounted(node: Node) -> None:
    """Nothing is mounted above, below or beside what has the path, nor where it could not be granted."""
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
        "w%00",
        "w%0ax",
    ):
        refused = await node.call("POST", f"sys/mounts/{path}", json={"type": "kv-v2"})
        assert refused.status_code == 400, (path, refused.text)
    assert set((await node.call("GET", "sys/mounts")).json()["data"]) == {
        "a/b/",
        "agents/",
        "pki/",
        "secret/",
        "secrets/",
        "sys/",
    }


async def test_kinds_that_cannot_be_mounted(node: Node) -> None:
    """Only what works can be mounted, and it says so."""
    for body in (
        {},
        {"type": ""},
        {"type": "database"},
        {"type": "kv"},
        {"type": "kv", "options": {}},
        {"type": "kv", "options": {"version": None}},
        {"type": "kv", "options": {"version": "2", "max_versions": "3"}},
        {"type": "kv-v1"},
        {"type": "generic"},
        {"type": "kv", "options": {"version": "1"}},
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
    refused = await node.call("POST", "sys/mounts/new", json={"type": "kv"})
    assert 'options {"version": "2"}, or the type "kv-v2"' in refused.json()["errors"][0]
    assert (await node.call("GET", "new/data/x")).status_code == 404


async def test_settings_of_a_new_mount(node: Node) -> None:
    """What clients send without being asked is taken, leases' limits are kept, anything else is refused."""
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
    assert (await node.call("POST", "sys/mounts/a", json={"type": "kv-v2", **empty})).status_code == 204
    limits = {"default_lease_ttl": "1h", "max_lease_ttl": 7200}
    made = await node.call("POST", "sys/mounts/b", json={"type": "kv-v2", "config": limits})
    assert made.status_code == 204
    shown = (await node.call("GET", "sys/mounts")).json()["data"]
    for path, ttls in (("a/", (0, 0)), ("b/", (3600, 7200))):
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
        refused = await node.call("POST", "sys/mounts/c", json={"type": "kv-v2", **wrong})
        assert refused.status_code == 400, (wrong, refused.text)
    assert "c/" not in (await node.call("GET", "sys/mounts")).json()["data"]


async def test_mounting_the_same_path_twice_at_once(node: Node) -> None:
    """Of requests for overlapping paths one wins."""
    paths = ["race", "race/a", "race/a/b", "race"]
    answers = await asyncio.gather(
        *(node.call("POST", f"sys/mounts/{path}", json={"type": "kv-v2"}) for path in paths)
    )
    assert sorted(answer.status_code for answer in answers) == [204, 400, 400, 400]


async def test_what_clients_ask_before_every_call(node: Node) -> None:
    """sys/internal/ui/mounts/<path> tells the mount to those who may do something below it, nobody else."""
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
