"""One path: what has no canonical form is refused by every endpoint alike, and nothing is decoded twice."""

from __future__ import annotations

from urllib.parse import quote

import asyncpg

from tests.gateway.conftest import Node, native
from tests.gateway.raw_http import ask, request

PREFIXES = ("/v1/secrets/", "/v1/secret/data/", "/v1/sys/policies/acl/", "/v1/auth/approle/role/", "/v1/x/")

NOT_CANONICAL = [
    "%00",
    "a%00b",
    "a%0ab",
    "a%0d%0aX-Injected:%201",
    "a%1bb",
    "a%7fb",
    "a%c2%80b",
    "a%c2%85b",
    ".",
    "..",
    "../secret/data/a",
    "a/../b",
    "a/./b",
    "%2e%2e/a",
    "%2E%2e",
    "%2e",
    "a/%2e%2e/%2e%2e/sys/seal",
    "a%2fb",
    "a%2Fb",
    "%2f",
    "..%2f..%2fsys",
    "a//b",
    "/a",
    "a//",
    "a/b//c/",
    "a%",
    "a%2",
    "a%zz",
    "a%u002e",
    "%c0%ae%c0%ae/a",
    "%c0%af",
    "%e0%80%af",
    "%ff",
    "%ed%a0%80",
    "%f5%80%80%80",
    "a%cc%88",
    "%e2%84%ab",
    "a%e2%80%aeb",
    "a%e2%80%8fb",
    "a%e2%80%a8b",
    "a%d8%9cb",
    "a" * 1025 + "/" + "b" * 1025 + "/" + "c" * 1025 + "/" + "d" * 1025,
    "a/" * 300 + "b",
    "a" * 5000,
]


async def test_paths_without_a_canonical_form(node: Node) -> None:
    """NUL, dots, encoded slashes, odd Unicode, empty segments and endless paths are each a plain 400."""
    token = f"X-Vault-Token: {node.root}"
    for prefix in PREFIXES:
        for path in NOT_CANONICAL:
            for method in ("GET", "PUT"):
                reply = await ask(node, request(prefix + path, token, method=method, body=b"{}"))
                assert reply.status == 400, (method, prefix + path[:60])
                assert reply.json()["code"] == "invalid_path"
                assert reply.header("x-injected") is None
    kept = await node.call("LIST", "secrets")
    assert kept.status_code == 404


async def test_endless_paths(node: Node) -> None:
    """A path of a hundred thousand bytes is refused where it stands, encoded or not."""
    for path in ("a" * 100_000, "%61" * 33_000, "a/" * 50_000, "%2e%2e/" * 20_000):
        reply = await ask(node, request("/v1/secrets/" + path, f"X-Vault-Token: {node.root}"))
        assert reply.status in {400, 431}


async def test_nothing_is_decoded_twice(node: Node) -> None:
    """A percent sign that was encoded stays one: policy, store, list and ledger see the same name."""
    token = f"X-Vault-Token: {node.root}"
    names = [
        "a%2fb",
        "..%2f",
        "%",
        "%00",
        "a b",
        "a+b",
        "a?b",
        "a#b",
        "a&b=c",
        'a"b',
        "a\\b",
        "ä",
        "日本",
        "{a}",
    ]
    for name in names:
        path = "/v1/secrets/odd/" + quote(name, safe="")
        body = b'{"data": {"n": 1}}'
        assert (await ask(node, request(path, token, method="POST", body=body))).status == 200, name
        assert (await ask(node, request(path, token))).json()["data"]["data"] == {"n": 1}
    listed = (await node.call("LIST", "secrets/odd")).json()["data"]["keys"]
    assert sorted(listed) == sorted(names)
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        noted = await connection.fetch("SELECT DISTINCT path FROM audit_entries WHERE operation = 'kv.write'")
    finally:
        await connection.close()
    assert {row["path"] for row in noted} == {f"secret/data/odd/{name}" for name in names}


async def test_no_spelling_leads_past_a_denial(node: Node) -> None:
    """However a denied path is written, it is denied or it is no path."""
    await node.call("POST", "secrets/app/secret", json={"data": {"k": "v"}})
    policy = native("secrets/**")
    policy["statements"] += native("secrets/app/secret", capabilities=("*",), effect="deny")["statements"]
    token = f"X-Vault-Token: {await node.token('most', policy)}"
    for path in (
        "secrets/app/secret",
        "secrets/app/secret/",
        "secrets/app/%73ecret",
        "secrets/%61pp/secret",
        "%73ecrets/app/secret",
        "secret/data/app/secret",
        "secret/data/app/secret/",
        "secret/d%61ta/app/secret",
        "secret/metadata/app/secret",
        "secrets/app/secret?version=1",
        "secrets/app/secret?list=false",
        "secrets/app//secret",
        "secrets/app/./secret",
        "secrets/app/x/../secret",
        "secrets//app/secret",
        "/secrets/app/secret",
        "secrets/app%2fsecret",
        "secrets/app/secret%20",
        "secrets/app/SECRET",
        "secrets/app/secret;a=b",
        "secrets/app/secret%00",
        "secrets/app/secret.json",
    ):
        reply = await ask(node, request("/v1/" + path, token))
        assert reply.status in {400, 403, 404}, path
        assert b'"v"' not in reply.body


async def test_only_below_v1(node: Node) -> None:
    """Nothing answers outside of /v1/, and no spelling of it is another one."""
    token = f"X-Vault-Token: {node.root}"
    for target in (
        "/",
        "/v1",
        "/v2/sys/mounts",
        "/V1/sys/mounts",
        "/%761/sys/mounts",
        "//v1/sys/mounts",
        "/ui/",
        "/admin",
    ):
        reply = await ask(node, request(target, token))
        assert (reply.status, reply.json()["errors"]) == (404, []), target
    assert (await ask(node, request("/v1/", token))).status == 400
    assert (await ask(node, request("/v1/sys/mounts?", token))).status == 200
