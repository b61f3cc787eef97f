"""Requests as Vault's clients send them: tokens, headers, bodies, queries."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import SHARING, Node
from tests.gateway.raw_http import ask, request

pytestmark = SHARING


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has names of its own."""
    return shared_node


async def test_token_headers(node: Node) -> None:
    """X-Vault-Token and a bearer token are the same; the former goes first; an empty one is none."""
    path = "/v1/auth/token/lookup-self"
    for headers in (
        {"X-Vault-Token": node.root},
        {"x-vault-token": node.root, "X-Vault-Request": "true", "X-Vault-No-Request-Forwarding": "true"},
        {"Authorization": f"Bearer {node.root}"},
        {"Authorization": f"bearer   {node.root}"},
        {"X-Vault-Token": "", "Authorization": f"Bearer {node.root}"},
        {"X-Vault-Token": node.root, "Authorization": "Bearer wrong"},
        {"X-Vault-Token": node.root, "X-Vault-Namespace": "root"},
        {"X-Vault-Token": node.root, "X-Vault-Namespace": "/"},
        {"X-Vault-Token": node.root, "X-Vault-Wrap-TTL": "0"},
    ):
        assert (await node.client.get(path, headers=headers)).status_code == 200, headers
    for headers in (
        {},
        {"Authorization": node.root},
        {"Authorization": f"Basic {node.root}"},
        {"Authorization": "Bearer"},
        {"X-Vault-Token": "wrong", "Authorization": f"Bearer {node.root}"},
        {"Cookie": f"token={node.root}"},
    ):
        assert (await node.client.get(path, headers=headers)).status_code == 403, headers
    assert (await node.client.get(f"{path}?token={node.root}")).status_code == 403


async def test_headers_that_decide_are_given_once(node: Node) -> None:
    """Two tokens, hosts or namespaces could be read differently by two readers: refused."""
    path = "/v1/auth/token/lookup-self"
    token = f"X-Vault-Token: {node.root}"
    for double in (
        (token, token),
        (token, "x-vault-token: other"),
        (f"Authorization: Bearer {node.root}", "Authorization: Bearer other"),
        (token, "Host: localhost"),
        (token, "X-Vault-Namespace: root", "X-Vault-Namespace: root"),
        (token, "Origin: http://localhost", "Origin: http://evil.example"),
        (token, "X-Vault-Wrap-TTL: 0", "X-Vault-Wrap-TTL: 60"),
    ):
        reply = await ask(node, request(path, *double))
        assert reply.status == 400, double
        assert reply.json()["errors"][0].endswith("is given twice")
    assert (await ask(node, request(path, token, "Accept: a", "Accept: b"))).status == 200


async def test_what_is_not_done_here_is_refused(node: Node) -> None:
    """Wrapping that cannot be and namespaces are never silently left out."""
    for headers in (
        {"X-Vault-Wrap-TTL": "soon"},
        {"X-Vault-Wrap-TTL": "60", "X-Vault-Wrap-Format": "jwt"},
        {"X-Vault-Namespace": "team"},
    ):
        answer = await node.call("GET", "auth/token/lookup-self", headers=headers)
        assert answer.status_code == 400, headers


@pytest.mark.parametrize("path", ["secrets/typed", "secret/data/typed"])
async def test_bodies_are_json_whatever_they_are_called(node: Node, path: str) -> None:
    """The content type says nothing; empty bodies are fine where nothing is needed."""
    body = b'{"data": {"k": "v"}}'
    for kind in (
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
    ):
        answer = await node.call("POST", path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200, kind
    assert (await node.call("POST", path, content=b"")).status_code == 400
    assert (await node.call("POST", path, content=b"a=b")).status_code == 400
    assert (await node.call("POST", "auth/token/create", content=b"")).status_code == 200
    assert (await node.call("PUT", "auth/approle/role/r", content=b"  \n")).status_code == 204
    assert (await node.call("GET", path, content=b"not read")).status_code == 200


async def test_coercion(node: Node) -> None:
    """Numbers and booleans as text, lists with commas and nulls mean what Vault takes them for."""
    written = await node.call(
        "POST",
        "auth/approle/role/r",
        json={
            "token_policies": "a, b",
            "token_ttl": "24",
            "token_max_ttl": "1h30m",
            "secret_id_num_uses": "7",
            "token_no_default_policy": "true",
            "secret_id_ttl": None,
            "policies": None,
        },
    )
    assert written.json()["warnings"] == [f'policy "{name}" does not exist' for name in "ab"]
    data = (await node.call("GET", "auth/approle/role/r")).json()["data"]
    assert data["token_policies"] == ["a", "b"]
    assert (data["token_ttl"], data["token_max_ttl"], data["secret_id_num_uses"]) == (24, 5400, 7)
    assert data["token_no_default_policy"] is True
    await node.call("POST", "secrets/c", json={"data": {}})
    for cas in ("1", 2):
        assert (
            await node.call("POST", "secrets/c", json={"data": {}, "options": {"cas": cas}})
        ).status_code == 200
    for body in ({"secret_id_num_uses": True}, {"token_ttl": False}, {"token_no_default_policy": 1}):
        assert (await node.call("POST", "auth/approle/role/r", json=body)).status_code == 400, body


async def test_unknown_keys(node: Node) -> None:
    """Vault's endpoints warn of keys that they do not know; SecretHub's own refuse them."""
    answer = await node.call(
        "POST", "secrets/u", json={"data": {}, "colour": 1, "options": {"cas": 0, "x": 1}}
    )
    assert answer.status_code == 200
    assert answer.json()["warnings"] == ["unknown fields were ignored: 'colour', 'options.x'"]
    quiet = await node.call("POST", "auth/approle/role/r", json={"color": "red"})
    assert quiet.status_code == 200
    assert quiet.json()["data"] is None
    assert "'color'" in quiet.json()["warnings"][0]
    for path, body in (
        ("sys/audit/verify", {"from": 1}),
        ("agents/enroll/begin", {"x": 1}),
    ):
        refused = await node.call("POST", path, json=body)
        assert refused.status_code in {400, 403}, (path, refused.text)
        assert refused.json().get("warnings") is None


async def test_queries(node: Node) -> None:
    """A query is well-formed, names nothing twice, and has no control characters."""
    await node.call("POST", "secrets/q", json={"data": {"v": 1}})
    assert (await node.call("GET", "secrets/q?version=1&unknown=%C3%A4&empty=")).status_code == 200
    assert (await node.call("DELETE", "secrets/q?versions=1,2")).status_code == 204
    for query in (
        "version=1&version=2",
        "after=%00",
        "after=a%0Ab",
        "a%00b=1",
        "version=%ff",
        "&".join(f"k{number}=1" for number in range(100)),
    ):
        refused = await node.call("GET", f"secrets/q?{query}")
        assert refused.status_code == 400, query
    assert (await ask(node, request("/v1/sys/health?a=\xff"))).status == 400


async def test_huge_and_broken_bodies(node: Node) -> None:
    """Depth, digits, encodings and sizes beyond reason are plain refusals."""
    limit = node.settings.max_body
    for body in (
        b'{"data": {"n": ' + b"9" * 10_000 + b"}}",
        b'{"data": {"n": 1e999}}',
        b'{"data": {"n": NaN}}',
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data":' * 100_000,
        b'{"data": {"a": "\xff\xfe"}}',
        b'{"data": {"a": "\xed\xa0\x80"}}',
        b'{"data": {"a": "\\ud800"}}',
        '{"data": {}}'.encode("utf-16"),
        b"\xef\xbb\xbf" + b'{"data": {}}',
        b"\x00" * 1000,
        b'{"data": {}} {"data": {}}',
        b'{"data": {},}',
        b"{'data': {}}",
        b'{"data": {"a": 01}}',
        b"null",
        b"[]",
        b'"data"',
    ):
        refused = await node.call("POST", "secrets/b", content=body)
        assert refused.status_code == 400, body[:60]
    fits = b'{"data": {"a": "' + b"x" * (limit - 19) + b'"}}'
    assert (await node.call("POST", "secrets/b", content=fits + b" ")).status_code == 413
    assert (await node.call("POST", "secrets/b", content=fits)).status_code == 200
    assert (await node.call("POST", "secrets/b", "hvs.unknown", content=fits)).status_code == 403


async def test_how_deep_a_body_is_nested(node: Node) -> None:
    """Sixty-four levels are kept as they are, one more is refused, whoever reads the body."""
    for path, before, after in (
        ("secrets/deep", '{"data": {"a": ', "}}"),
        ("cubbyhole/deep", '{"a": {"b": ', "}}"),
        ("sys/wrapping/wrap", '{"a": {"b": ', "}}"),
    ):
        for levels, code in ((62, 200), (63, 400)):
            body = before + "[" * levels + '"]]}"' + "]" * levels + after
            headers = {"X-Vault-Wrap-TTL": "60"} if "wrap" in path else {}
            answer = await node.call("POST", path, content=body, headers=headers)
            assert answer.status_code in {code, 204 if code == 200 else code}, (path, levels)
            assert ("too deep" in answer.text) is (code == 400)
    kept = (await node.call("GET", "secrets/deep")).json()["data"]["data"]["a"]
    levels = 0
    while isinstance(kept, list):
        (kept,), levels = kept, levels + 1
    assert (kept, levels) == ("]]}", 62)
