"""sys/capabilities: what a token may do, as the decision about a request would say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import SHARING, Node, native

pytestmark = SHARING


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has names of its own."""
    return shared_node


async def self_of(node: Node, token: str, *paths: str) -> Any:
    answer = await node.call("POST", "sys/capabilities-self", token, json={"paths": list(paths)})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_vaults_language(node: Node) -> None:
    """Capabilities of a rule are told sorted, by path, at the top too; a single path's also by their name."""
    policy = {
        "path": {
            "secret/data/a/*": {"capabilities": ["create", "read", "update", "list", "sudo"]},
            "secret/data/a/no": {"capabilities": ["deny"]},
            "secret/metadata/*": {"capabilities": ["list"]},
        }
    }
    token = await node.token("vault", policy)
    body = await self_of(
        node, token, "secret/data/a/b", "secret/data/a/no", "secret/data/c", "secret/metadata/x"
    )
    expected = {
        "secret/data/a/b": ["create", "list", "read", "sudo", "update"],
        "secret/data/a/no": ["deny"],
        "secret/data/c": ["deny"],
        "secret/metadata/x": ["list"],
    }
    assert body["data"] == expected
    assert {path: body[path] for path in expected} == expected
    assert "capabilities" not in body
    one = await self_of(node, token, "secret/data/a/b")
    assert one["capabilities"] == one["data"]["capabilities"] == one["secret/data/a/b"]


async def test_the_native_language(node: Node) -> None:
    """Native rules are told of at the paths that they mean; their denials take away Vault's grants."""
    rules = native("secrets/a/**", capabilities=("read", "create"))
    rules["statements"] += native("secrets/a/x", capabilities=("*",), effect="deny")["statements"]
    await node.call("PUT", "sys/policies/acl/nat", json={"policy": rules})
    wide = {"path": {"secret/data/a/*": {"capabilities": ["delete"]}}}
    await node.call("PUT", "sys/policies/acl/wide", json={"policy": wide})
    made = await node.call("POST", "auth/token/create", json={"policies": ["nat", "wide"]})
    token = made.json()["auth"]["client_token"]
    found = (await self_of(node, token, "secret/data/a/b", "secrets/a/b", "secret/data/a/x", "secrets/b"))[
        "data"
    ]
    assert found["secret/data/a/b"] == found["secrets/a/b"] == ["create", "delete", "read"]
    assert found["secret/data/a/x"] == ["deny"]
    assert found["secrets/b"] == ["deny"]


async def test_it_is_what_requests_meet(node: Node) -> None:
    """For every capability that is told a request goes through, and for no other."""
    for granted in ("create", "read", "update", "delete", "list", "patch"):
        token = await node.token(
            "some", native("secrets/p/**", capabilities=(granted,)), no_default_policy=True
        )
        admin = native("sys/capabilities-self", capabilities=("update",))
        rights = native("secrets/p/**", capabilities=(granted,))
        rights["statements"] += admin["statements"]
        await node.call("PUT", "sys/policies/acl/some", json={"policy": rights})
        await node.call("POST", "secrets/p/there", json={"data": {"k": 1}})
        path = "secret/data/p/there" if granted != "list" else "secret/metadata/p"
        told = (await self_of(node, token, path))["capabilities"]
        for capability, method, where, body in (
            ("create", "POST", "secrets/p/new", {"data": {}}),
            ("read", "GET", "secrets/p/there", None),
            ("update", "POST", "secrets/p/there", {"data": {}}),
            ("delete", "DELETE", "secrets/p/there", None),
        ):
            code = (await node.call(method, where, token, json=body)).status_code
            assert (code != 403) is (capability in told), (granted, capability, told)
        listed = await node.call("LIST", "secrets/p", token)
        assert (listed.status_code != 403) is ("list" in told)
        await node.call("DELETE", "secret/metadata/p/new")


async def test_root_and_agents_of_others(node: Node) -> None:
    """Root is told as root; by token and by accessor it is the other's capabilities that are told."""
    assert (await self_of(node, node.root, "any/thing"))["capabilities"] == ["root"]
    made = await node.call("POST", "auth/token/create", json={"policies": ["default"]})
    auth = made.json()["auth"]
    for path, body in (
        ("capabilities", {"token": auth["client_token"]}),
        ("capabilities-accessor", {"accessor": auth["accessor"]}),
    ):
        answer = await node.call("POST", f"sys/{path}", json={**body, "path": "auth/token/lookup-self"})
        assert answer.json()["capabilities"] == ["read"]
    batch = await node.call("POST", "auth/token/create", json={"policies": ["default"], "type": "batch"})
    body = {"token": batch.json()["auth"]["client_token"], "paths": "cubbyhole/a,sys/seal"}
    found = (await node.call("POST", "sys/capabilities", json=body)).json()["data"]
    assert found == {"cubbyhole/a": ["create", "delete", "list", "read", "update"], "sys/seal": ["deny"]}


async def test_conditions(node: Node) -> None:
    """A condition on the address holds for the caller where it is, not for whoever is elsewhere."""
    rules = native("secrets/a")
    rules["statements"][0]["conditions"] = {"source_ip": ["127.0.0.0/8"]}
    token = await node.token("near", rules)
    assert (await self_of(node, token, "secret/data/a"))["capabilities"] == ["read"]
    other = await node.call("POST", "sys/capabilities", json={"token": token, "paths": ["secret/data/a"]})
    assert other.json()["capabilities"] == ["deny"]


async def test_odd_paths(node: Node) -> None:
    """Slashes around a path mean nothing and wildcards in it are characters; each is told as it was asked."""
    policy = {
        "path": {
            "secret/data/a/*": {"capabilities": ["read", "sudo"]},
            "secret/data/b": {"capabilities": ["update"]},
            "secret/data/+/c": {"capabilities": ["delete"]},
            "secret/metadata/d/": {"capabilities": ["list"]},
        }
    }
    token = await node.token("odd", policy)
    expected = {
        "/secret/data/a/b": ["read", "sudo"],
        "///secret/data/a/b": ["read", "sudo"],
        "secret/data/b/": ["update"],
        "secret/data/a/*": ["read", "sudo"],
        "secret/data/*": ["deny"],
        "secret/data/+/c": ["delete"],
        "secret/data/+": ["deny"],
        "secret/metadata/d": ["list"],
        "secret/metadata/d/": ["list"],
        "secret/data/a b": ["deny"],
        "nothing/mounted/here": ["deny"],
    }
    assert (await self_of(node, token, *expected))["data"] == expected
    text = {"paths": "secret/data/b, secret/data/z ,secret/data/b"}
    listed = await node.call("POST", "sys/capabilities-self", token, json=text)
    assert listed.json()["data"] == {"secret/data/b": ["update"], "secret/data/z": ["deny"]}


async def test_denials_beside_grants(node: Node) -> None:
    """``deny`` stands in the place of everything else of its path, ``sudo`` too, whichever policy says so."""
    wide = {
        "path": {
            "secret/data/a": {"capabilities": ["read", "sudo"]},
            "sys/*": {"capabilities": ["update", "sudo"]},
        }
    }
    none = {
        "path": {
            "secret/data/a": {"capabilities": ["deny"]},
            "sys/seal": {"capabilities": ["deny", "sudo", "update"]},
        }
    }
    for name, policy in (("much", wide), ("little", none)):
        written = await node.call("PUT", f"sys/policies/acl/{name}", json={"policy": policy})
        assert written.status_code == 204, written.text
    asked = ("secret/data/a", "sys/seal", "sys/rotate")
    for names, expected in (
        (["much"], (["read", "sudo"], ["sudo", "update"], ["sudo", "update"])),
        (["little"], (["deny"], ["deny"], ["deny"])),
        (["much", "little"], (["deny"], ["deny"], ["sudo", "update"])),
    ):
        made = await node.call("POST", "auth/token/create", json={"policies": names})
        token = made.json()["auth"]["client_token"]
        assert (await self_of(node, token, *asked))["data"] == dict(zip(asked, expected, strict=True)), names


async def test_root_is_root_everywhere(node: Node) -> None:
    """Root is told as root at each of several paths, whoever asks; ``paths`` wins over its older name."""
    expected: dict[str, Any] = {"a": ["root"], "sys/seal": ["root"], "/b/": ["root"]}
    assert (await self_of(node, node.root, *expected))["data"] == expected
    body = {"token": node.root, "paths": ["a", "b"], "path": ["c"]}
    found = await node.call("POST", "sys/capabilities", json=body)
    assert found.json()["data"] == {"a": ["root"], "b": ["root"]}


async def test_what_is_asked_wrongly(node: Node) -> None:
    """Unknown tokens and accessors, and paths that are none, are refused in words."""
    for path, body, says in (
        ("capabilities", {"token": "hvs.none", "paths": ["a"]}, "invalid token"),
        ("capabilities", {"paths": ["a"]}, "invalid token"),
        ("capabilities-accessor", {"accessor": "none", "paths": ["a"]}, "invalid accessor"),
        ("capabilities-self", {}, "paths must be supplied"),
        ("capabilities-self", {"paths": []}, "paths must be supplied"),
        ("capabilities-self", {"paths": [], "path": ""}, "paths must be supplied"),
        ("capabilities-self", {"paths": ["a", ""]}, "empty"),
        ("capabilities-self", {"paths": ["/"]}, "empty"),
        ("capabilities-self", {"paths": ["a/../b"]}, "segment"),
        ("capabilities-self", {"paths": ["a"] * 300}, "at most"),
    ):
        answer = await node.call("POST", f"sys/{path}", json=body)
        assert answer.status_code == 400, (path, body)
        assert says in answer.json()["errors"][0]


@pytest.mark.parametrize("path", ["sys/capabilities", "sys/capabilities-self", "sys/capabilities-accessor"])
async def test_rights(node: Node, path: str) -> None:
    """Each endpoint wants its own path granted."""
    made = (await node.call("POST", "auth/token/create", json={"policies": ["a"]})).json()["auth"]
    body = {"token": made["client_token"], "accessor": made["accessor"], "paths": ["a"]}
    exact = await node.token("exact", native(path, capabilities=("update",)), no_default_policy=True)
    other = await node.token("other", native("secrets/x"), no_default_policy=True)
    denied = await node.token("denied", native(path, capabilities=("update",), effect="deny"))
    for token in ("", other, denied):
        assert (await node.call("POST", path, token, json=body)).status_code == 403
    assert (await node.call("POST", path, exact, json=body)).status_code == 200
