"""Answers as Vault's clients expect them: envelope, headers, status codes, methods, health."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import httpx2

from secrethub.ids import is_uuid
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.raw_http import ask, request

EIGHT = {"request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"}
AUTH = {
    "client_token",
    "accessor",
    "policies",
    "token_policies",
    "metadata",
    "lease_duration",
    "renewable",
    "entity_id",
    "token_type",
    "orphan",
    "num_uses",
}


def check_headers(answer: httpx2.Response) -> None:
    """Every answer, good or bad, is JSON that nobody stores, sniffs or frames."""
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert is_uuid(answer.headers["x-request-id"])
    assert "server" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@SHARING
async def test_envelope(shared_node: Node) -> None:
    """A read has the eight keys; sys/ repeats its data beside them; the request id is the header's."""
    node = shared_node
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    answer = await node.call("GET", "secrets/a")
    check_headers(answer)
    body = answer.json()
    assert set(body) == EIGHT
    assert body["request_id"] == answer.headers["x-request-id"]
    assert (body["lease_id"], body["renewable"], body["lease_duration"]) == ("", False, 0)
    assert body["wrap_info"] is body["warnings"] is body["auth"] is None
    listed = (await node.call("LIST", "sys/policies/acl")).json()
    assert set(listed) == EIGHT | set(listed["data"])
    assert listed["keys"] == listed["data"]["keys"]
    made = (await node.call("POST", "auth/token/create", json={"policies": ["a"]})).json()
    assert set(made) == EIGHT
    assert made["data"] is None
    assert set(made["auth"]) == AUTH
    assert made["auth"]["metadata"] is None
    made = (await node.call("POST", "auth/token/create", json={"meta": {"a": "b"}})).json()
    assert made["auth"]["metadata"] == {"a": "b"}


@SHARING
async def test_status_codes(shared_node: Node) -> None:
    """200, 204, 400, 403, 404 and 405, each with headers and, for errors, a text and a stable code."""
    node = shared_node
    await node.call("POST", "auth/approle/role/r", json={})
    for method, path, body, status, errors in (
        ("GET", "sys/mounts", None, 200, None),
        ("PUT", "sys/policies/acl/p", {"policy": native("secrets/a")}, 204, None),
        ("POST", "auth/approle/role/r", {}, 204, None),
        ("DELETE", "secrets/none", None, 204, None),
        ("POST", "secrets/a", {"data": 1}, 400, None),
        ("GET", "secrets/none", None, 404, []),
        ("LIST", "secrets/none", None, 404, []),
        ("GET", "nothing/here", None, 404, ['no handler for route "nothing/here". route entry not found.']),
        ("LIST", "nothing", None, 404, ['no handler for route "nothing". route entry not found.']),
        ("PUT", "none/a%22b", {}, 404, ['no handler for route "none/a\\"b". route entry not found.']),
        ("GET", "sys/nothing", None, 404, ['no handler for route "sys/nothing". route entry not found.']),
        ("DELETE", "sys/mounts", None, 405, ["unsupported operation"]),
        ("PATCH", "secrets/a", {}, 400, None),
        ("PATCH", "sys/mounts", {}, 405, ["unsupported operation"]),
        ("POST", "auth/token/accessors", {}, 405, ["unsupported operation"]),
        ("OPTIONS", "secrets/a", None, 405, None),
        ("TRACE", "secrets/a", None, 405, None),
        ("PROPFIND", "secrets/a", None, 405, None),
    ):
        answer = await node.call(method, path, json=body)
        assert answer.status_code == status, (method, path, answer.text)
        check_headers(answer)
        if status == 204:
            assert answer.content == b""
            assert "content-length" not in answer.headers
        elif status >= 400:
            shown = answer.json()
            assert set(shown) == {"errors", "code", "request_id"}
            assert errors is None or shown["errors"] == errors
    denied = await node.call("GET", "secrets/a", "hvs.unknown")
    assert denied.status_code == 403
    assert denied.json()["errors"] == ["permission denied"]
    check_headers(denied)


async def test_sealed(sealed_node: Node) -> None:
    """Without a cluster and while it is sealed everything but the state is 503, in Vault's words."""
    node = sealed_node
    for _ in range(2):
        for method, path in (
            ("GET", "secrets/a"),
            ("LIST", "secrets"),
            ("POST", "auth/approle/login"),
            ("GET", "x"),
        ):
            answer = await node.call(method, path)
            assert answer.status_code == 503, path
            assert answer.json()["errors"] == ["Vault is sealed"]
            check_headers(answer)
        for path in ("sys/seal-status", "sys/leader", "sys/init"):
            assert (await node.call("GET", path, "")).status_code == 200
        if not node.root:
            unseal = await node.call("PUT", "sys/unseal", json={"key": "00"})
            assert unseal.status_code == 400
            await node.initialise()


@SHARING
async def test_post_is_put(shared_node: Node) -> None:
    """Both verbs are the same write."""
    node = shared_node
    for method in ("POST", "PUT"):
        assert (await node.call(method, "secrets/same", json={"data": {}})).status_code == 200
        assert (
            await node.call(method, "sys/policies/acl/same", json={"policy": native("a")})
        ).status_code == 204
        assert (await node.call(method, "auth/token/renew-self")).status_code == 400
    assert (await node.call("GET", "secrets/same")).json()["data"]["metadata"]["version"] == 2


async def test_lists(node: Node) -> None:
    """The verb and the parameter are the same list, with and without a slash; other values are a read."""
    await node.call("POST", "secrets/a/b", json={"data": {}})
    for path in ("secrets/a", "secrets/a/", "secret/metadata/a", "secret/metadata/a/"):
        for method, query in (
            ("LIST", ""),
            ("GET", "?list=true"),
            ("GET", "?list=1"),
            ("LIST", "?list=true"),
        ):
            answer = await node.call(method, path + query)
            assert answer.json()["data"] == {"keys": ["b"]}, (method, path + query)
    for path in ("secrets", "secrets/", "secret/metadata", "secret/metadata/"):
        assert (await node.call("LIST", path)).json()["data"] == {"keys": ["a/"]}
    assert (await node.call("GET", "secrets/a?list=false")).status_code == 404
    assert (await node.call("LIST", "secrets/a/b")).status_code == 404
    for query in ("limit=x", "limit=-1", "limit=1e3", "limit=" + "9" * 5000):
        assert (await node.call("GET", f"secrets/a?list=true&{query}")).status_code == 400


@SHARING
async def test_deleted_version(shared_node: Node) -> None:
    """A deleted version is 404 with its metadata; older ones stay readable."""
    node = shared_node
    for value in (1, 2):
        await node.call("POST", "secrets/d", json={"data": {"v": value}})
    assert (await node.call("DELETE", "secrets/d")).status_code == 204
    gone = await node.call("GET", "secret/data/d")
    assert gone.status_code == 404
    assert set(gone.json()) == EIGHT
    data = gone.json()["data"]
    assert data["data"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", data["metadata"]["deletion_time"])
    assert (data["metadata"]["version"], data["metadata"]["destroyed"]) == (2, False)
    assert (await node.call("GET", "secrets/d?version=1")).json()["data"]["data"] == {"v": 1}
    assert (await node.call("GET", "secrets/d?version=3")).json()["errors"] == []
    for version in ("x", "-1", "1.0", "0x1", "9" * 30, "%C2%B2"):
        assert (await node.call("GET", f"secrets/d?version={version}")).status_code == 400, version
    for version in ("0", ""):
        assert (await node.call("GET", f"secrets/d?version={version}")).status_code == 404


@SHARING
async def test_values_come_back_as_they_went(shared_node: Node) -> None:
    """Any JSON object is a secret, every value in it unchanged."""
    node = shared_node
    values: list[dict[str, Any]] = [
        {},
        {"": ""},
        {"nul\u0000": "\u0000", 'quote"\\': "\u2028\u202e"},
        {"big": 123456789012345678901234567890, "small": -(10**25), "float": 1.5, "tiny": 5e-324},
        {"nested": [[], {}, [{"a": [None, True, False]}]]},
        {"unicode": "ünï 😀 e\u0301"},
        {"data": {"data": {}}, "metadata": {"version": 7}},
        {f"k{number}": "x" * 100 for number in range(1000)},
    ]
    for value in values:
        written = await node.call("POST", "secrets/v", json={"data": value})
        assert written.status_code == 200, written.text
        assert (await node.call("GET", "secrets/v")).json()["data"]["data"] == value


@SHARING
async def test_health(shared_node: Node) -> None:
    """Health answers GET and HEAD without a token, with codes that the caller may choose."""
    node = shared_node
    plain = await node.call("GET", "sys/health", "")
    check_headers(plain)
    body = plain.json()
    assert set(body) >= {
        "initialized",
        "sealed",
        "standby",
        "server_time_utc",
        "version",
        "cluster_name",
        "cluster_id",
        "secrethub_version",
    }
    assert re.fullmatch(r"1\.16\.\d+", body["version"])
    assert (await node.call("GET", "sys/health?activecode=299", "")).status_code == 299
    assert (await node.call("GET", "sys/health?sealedcode=299&standbycode=1", "")).status_code == 200
    for code in ("99", "600", "1000", "x", "", "-200", "²⁰⁰", "9" * 5000):
        assert (await node.call("GET", f"sys/health?activecode={code}", "")).status_code == 400, code
    head = await ask(node, request(method="HEAD"), "HEAD")
    assert head.status == 200
    assert int(head.header("content-length") or "0") > 100
    status = (await node.call("GET", "sys/seal-status", "")).json()
    assert set(status) == {
        "type",
        "initialized",
        "sealed",
        "t",
        "n",
        "progress",
        "nonce",
        "version",
        "build_date",
        "migration",
        "cluster_name",
        "cluster_id",
        "recovery_seal",
        "storage_type",
        "rolled_back",
        "slots",
        "secrethub_version",
    }
    assert status["version"] == body["version"]


async def test_health_while_sealed(sealed_node: Node) -> None:
    """501 without a cluster, 503 sealed, both to be chosen otherwise."""
    node = sealed_node
    assert (await node.call("HEAD", "sys/health")).status_code == 501
    assert (await node.call("GET", "sys/health?uninitcode=200")).status_code == 200
    await node.initialise()
    assert (await node.call("HEAD", "sys/health")).status_code == 503
    assert (await node.call("GET", "sys/health?sealedcode=204")).status_code == 204
    assert (await node.call("GET", "sys/health?uninitcode=299&activecode=298")).status_code == 503


async def test_init_answers_shares_in_both_spellings(sealed_node: Node) -> None:
    """``keys`` are the hexadecimal spelling of ``keys_base64``, 33 bytes each."""
    answer = await sealed_node.call("PUT", "sys/init", json={"secret_shares": "3", "secret_threshold": "2"})
    check_headers(answer)
    body = answer.json()
    assert set(body) == {"keys", "keys_base64", "root_token"}
    for text, encoded in zip(body["keys"], body["keys_base64"], strict=True):
        assert bytes.fromhex(text) == base64.b64decode(encoded)
        assert len(text) == 66


async def test_impossible_init_is_refused(sealed_node: Node) -> None:
    """Impossible numbers make no cluster."""
    for body in (
        {"secret_shares": 0},
        {"secret_shares": 256, "secret_threshold": 2},
        {"secret_shares": 2, "secret_threshold": 3},
        {"secret_shares": 5, "secret_threshold": 1},
        {"secret_shares": -1},
        {"secret_shares": "--5"},
        {"secret_shares": 10**30},
        {"secret_shares": True},
        {"secret_shares": 5.5},
        {"secret_threshold": "three"},
    ):
        refused = await sealed_node.call("PUT", "sys/init", json=body)
        assert refused.status_code == 400, (body, refused.text)
    assert (await sealed_node.call("GET", "sys/init")).json() == {"initialized": False}


async def test_init_does_what_it_is_asked_or_nothing(sealed_node: Node) -> None:
    """Shares are not given out in clear to who asked to have them encrypted; zeros and nulls ask nothing."""
    for body in (
        {"pgp_keys": ["mQENBF"] * 5},
        {"pgp_keys": "mQENBF,mQENBF"},
        {"root_token_pgp_key": "mQENBF"},
        {"stored_shares": 5},
        {"recovery_shares": 5, "recovery_threshold": 3},
        {"recovery_threshold": "3"},
        {"recovery_pgp_keys": ["mQENBF"]},
        {"secret_share": 7},
    ):
        refused = await sealed_node.call("PUT", "sys/init", json=body)
        assert refused.status_code == 400, (body, refused.text)
        assert min(body) in refused.json()["errors"][0]
    assert (await sealed_node.call("GET", "sys/init")).json() == {"initialized": False}
    nothing = {"stored_shares": 0, "recovery_shares": 0, "recovery_threshold": 0, "root_token_pgp_key": ""}
    lists = {"pgp_keys": None, "recovery_pgp_keys": [], "another": None}
    body = {"secret_shares": 1, "secret_threshold": 1, **nothing, **lists}
    assert (await sealed_node.call("PUT", "sys/init", json=body)).status_code == 200


@SHARING
async def test_errors_say_nothing_of_the_inside(shared_node: Node) -> None:
    """No answer has a trace, a path of this machine, a statement or a name of a table in it."""
    node = shared_node
    words = ("Traceback", "asyncpg", "SELECT", "secrethub/", "/home", ".py", "kv_secrets", "<class")
    for method, path, body in (
        ("POST", "secrets/a", b"{"),
        ("POST", "secrets/a", b'{"data": [1]}'),
        ("POST", "auth/token/create", b'{"ttl": {}}'),
        ("GET", "secrets/" + "a" * 3000, b""),
        ("POST", "sys/unseal", b'{"key": "zz"}'),
        ("POST", "sys/mounts/x", b'{"type": "x"}'),
        ("POST", "pki/issue", b'{"common_name": "*"}'),
        ("GET", "agents/none", b""),
        ("POST", "agents/enroll", b'{"csr": 1}'),
    ):
        answer = await node.call(method, path, content=body)
        assert answer.status_code in {400, 403, 404}, (path, answer.text)
        assert not [word for word in words if word in answer.text], answer.text


@SHARING
async def test_streams_are_lines(shared_node: Node) -> None:
    """Progress comes as JSON Lines when asked for, the last one being the result."""
    node = shared_node
    answer = await node.call("POST", "sys/audit/verify", headers={"Accept": "application/x-ndjson"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[-1]["ok"] is True
