"""Random bytes, digests, and the description of the API."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from tests.gateway.behind import entries
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.kv import ok, status

pytestmark = SHARING


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has names of its own."""
    return shared_node


async def test_random_bytes(node: Node) -> None:
    """As many as asked for, in either form, by every path that Vault has; never the same twice."""
    seen = set()
    for path, body, length in (
        ("", {}, 32),
        ("", {"bytes": 7}, 7),
        ("", {"bytes": "9"}, 9),
        ("/16", {"bytes": 7}, 16),
        ("/platform", {}, 32),
        ("/platform/131072", {}, 131072),
        ("", {"source": "platform", "bytes": 1024}, 1024),
    ):
        made = (await ok(node, "POST", f"sys/tools/random{path}", body))["random_bytes"]
        assert len(base64.b64decode(made, validate=True)) == length, (path, body)
        shown = (await ok(node, "POST", f"sys/tools/random{path}", {**body, "format": "hex"}))["random_bytes"]
        assert len(bytes.fromhex(shown)) == length, (path, body)
        seen |= {made, shown}
    assert len(seen) == 14
    for path, wrong in (
        ("", {"bytes": 0}),
        ("", {"bytes": -1}),
        ("", {"bytes": 131073}),
        ("", {"bytes": True}),
        ("", {"format": "base32"}),
        ("", {"source": "seal"}),
        ("/0", {}),
        ("/131073", {}),
        ("/all", {}),
        ("/platform/x", {}),
        ("/platform/-1", {}),
        ("/platform/99999999999999999999", {}),
        ("/\u0663", {}),
    ):
        assert await status(node, "POST", f"sys/tools/random{path}", wrong) == 400, (path, wrong)


async def test_digests(node: Node) -> None:
    """Every algorithm that Vault has, in either form; what is no base64 or unknown is refused."""
    content = b"what is digested"
    given = base64.b64encode(content).decode()
    for family, module in (("sha2", ""), ("sha3", "3_")):
        for bits in (224, 256, 384, 512):
            expected = hashlib.new(f"sha{module}{bits}" if module else f"sha{bits}", content).digest()
            name = f"{family}-{bits}"
            by_path = await ok(node, "POST", f"sys/tools/hash/{name}", {"input": given})
            assert by_path == {"sum": expected.hex()}
            body = {"input": given, "algorithm": name, "format": "base64"}
            by_body = await ok(node, "POST", "sys/tools/hash", body)
            assert by_body == {"sum": base64.b64encode(expected).decode()}
    assert (await ok(node, "POST", "sys/tools/hash", {}))["sum"] == hashlib.sha256(b"").hexdigest()
    for path, wrong in (
        ("", {"input": "%"}),
        ("", {"input": "YQ"}),
        ("", {"input": given, "algorithm": "md5"}),
        ("/sha2-1", {"input": given}),
        ("", {"input": given, "format": "x"}),
    ):
        assert await status(node, "POST", f"sys/tools/hash{path}", wrong) == 400, (path, wrong)


async def test_nothing_of_it_is_written_down(node: Node) -> None:
    """The ledger has neither the input nor its digest nor the random bytes."""
    canary = base64.b64encode(b"canary").decode()
    told = [
        (await ok(node, "POST", "sys/tools/hash", {"input": canary}))["sum"],
        (await ok(node, "POST", "sys/tools/random", {}))["random_bytes"],
        canary,
    ]
    text = repr(await entries(node.settings.database_url))
    assert "sys.tools.hash" in text
    assert not [value for value in told if value in text]


async def test_who_may_use_them(node: Node) -> None:
    """Digests are for every token, random bytes for whom they were granted, as in Vault."""
    token = await node.token("plain", native("secrets/none"))
    assert await status(node, "POST", "sys/tools/hash", {}, token=token) == 200
    assert await status(node, "POST", "sys/tools/random", {}, token=token) == 403
    assert await status(node, "GET", "sys/internal/specs/openapi", token=token) == 403


async def test_the_description_shows_what_the_caller_may_see(node: Node) -> None:
    """Whoever may do nothing below a mount is not told of it."""
    policy: dict[str, Any] = {
        "path": {
            "sys/internal/specs/openapi": {"capabilities": ["read"]},
            "secret/data/a": {"capabilities": ["read"]},
        }
    }
    token = await node.token("curious", policy, no_default_policy=True)
    paths = (await node.call("GET", "sys/internal/specs/openapi", token)).json()["paths"]
    assert {path.split("/")[1] for path in paths} == {"secret", "sys"}
    everything = (await node.call("GET", "sys/internal/specs/openapi")).json()["paths"]
    assert {path.split("/")[1] for path in everything} >= {"agents", "auth", "pki", "secret", "sys"}
