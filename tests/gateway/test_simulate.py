"""Trying policies and asking why: the same decision as a request's, for those who may ask."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import SHARING, Node, native

pytestmark = SHARING
HCL = 'path "secret/data/app/*" { capabilities = ["read"] }'


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has names of its own."""
    return shared_node


async def tried(node: Node, token: str | None = None, **body: Any) -> dict[str, Any]:
    """Try and return the answer's data."""
    answer = await node.call("POST", "sys/policies/simulate", token, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


async def test_what_is_tried_is_what_happens(node: Node) -> None:
    """Written policies decide in a trial as they do about requests, path by path."""
    document = native("secrets/app/**", capabilities=("read", "list"))
    document["statements"].append({"effect": "deny", "paths": ["secrets/app/root"], "capabilities": ["*"]})
    document["statements"] += native("sys/tools/random", capabilities=("create",))["statements"]
    token = await node.token("app", document)
    await node.call("POST", "secrets/app/db", json={"data": {"k": 1}})
    await node.call("POST", "secrets/app/root", json={"data": {"k": 1}})
    for path, capability, method in (
        ("secrets/app/db", "read", "GET"),
        ("secret/data/app/db", "read", "GET"),
        ("secrets/app/root", "read", "GET"),
        ("secrets/app", "list", "LIST"),
        ("secrets/app/db", "delete", "DELETE"),
        ("secrets/other", "create", "POST"),
        ("auth/token/lookup-self", "read", "GET"),
        ("sys/policies/acl", "list", "LIST"),
        ("sys/tools/random", "create", "POST"),
        ("nowhere/at/all", "read", "GET"),
    ):
        found = await tried(node, path=path, capability=capability, policies=["app", "default"])
        options = {"json": {"data": {}}} if method == "POST" else {}
        status = (await node.call(method, path, token, **options)).status_code
        assert found["allowed"] is (status != 403), path


async def test_proposed_documents_and_circumstances(node: Node) -> None:
    """Documents that are not written yet are tried, in every language, at any time and place."""
    conditional = native("secrets/app/*")
    conditional["statements"][0]["conditions"] = {
        "source_ip": ["10.0.0.0/8"],
        "time": {"from": "22:00", "until": "06:00"},
        "max_ttl": "1h",
        "wrapping": True,
    }
    right = {
        "path": "secrets/app/db",
        "client_address": "10.1.1.1",
        "at": "2030-01-01T23:00:00Z",
        "token_ttl": "30m",
        "wrap_ttl": "5m",
    }
    found = await tried(node, documents=[conditional], **right)
    assert found["allowed"] is True
    assert found["native_path"] == "secrets/app/db"
    assert found["path"] == "secret/data/app/db"
    assert found["operation"] == "kv.read"
    for name, wrong in (
        ("source_ip", {"client_address": "192.0.2.1"}),
        ("source_ip", {"client_address": None}),
        ("time", {"at": "2030-01-01T12:00:00Z"}),
        ("max_ttl", {"token_ttl": 0}),
        ("wrapping", {"wrap_ttl": 0}),
    ):
        found = await tried(node, documents=[conditional], **(right | wrong))
        assert found["allowed"] is False
        assert found["trace"][0]["failing"] == name
        assert name in found["reason"]
    found = await tried(node, documents=[HCL], path="secret/data/app/db")
    assert found["allowed"] is True
    assert found["trace"] == [
        {
            "language": "acl",
            "policy": "proposed-1",
            "rule": "secret/data/app/*",
            "effect": "allow",
            "capabilities": ["read"],
            "failing": "",
        }
    ]
    assert (await tried(node, policies=["root"], path="sys/seal", capability="update"))["allowed"] is True


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": "a"},
        {"path": "a", "policies": ["nobody-wrote-it"]},
        {"path": "a", "documents": ["{"]},
        {"path": "a/../b", "documents": [HCL]},
        {"path": "a", "documents": [HCL], "capability": "fly"},
        {"path": "a", "documents": [HCL], "at": "soon"},
        {"path": "a", "documents": [HCL], "token": "hvs.x"},
        {"path": "a", "documents": [HCL] * 65},
    ],
)
async def test_what_cannot_be_tried(node: Node, body: dict[str, Any]) -> None:
    """What is not a question is refused with a reason."""
    answer = await node.call("POST", "sys/policies/simulate", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]


async def test_why_a_request_was_refused(node: Node) -> None:
    """The id in a refusal leads whoever may ask to its reason, and nobody else."""
    token = await node.token("app", native("secrets/mine"))
    refused = (await node.call("GET", "secrets/theirs", token)).json()
    assert refused["errors"] == ["permission denied"]
    path = f"sys/audit/refusals/{refused['request_id']}"
    (entry,) = (await node.call("GET", path)).json()["data"]["entries"]
    assert entry["reason"] == "no policy allows read"
    assert (entry["path"], entry["outcome"]) == ("secret/data/theirs", "denied")
    assert entry["client"] == "127.0.0.1"
    assert token not in str(entry)
    assert (await node.call("GET", path, token)).status_code == 403
    granted = await node.token("auditor", native("sys/audit/**", capabilities=("read",)))
    assert (await node.call("GET", path, granted)).status_code == 403
    auditor = await node.token("auditor", native("sys/audit/**", capabilities=("read", "sudo")))
    assert (await node.call("GET", path, auditor)).status_code == 200
    done = (await node.call("GET", "auth/token/lookup-self")).json()["request_id"]
    assert (await node.call("GET", f"sys/audit/refusals/{done}")).status_code == 404
    assert (await node.call("GET", "sys/audit/refusals/x")).status_code == 400


async def test_trying_needs_a_grant(node: Node) -> None:
    """Policies are tried by those who may, since an answer tells what is in them."""
    body = {"path": "secrets/a", "documents": [HCL]}
    token = await node.token("app", native("secrets/**"))
    assert (await node.call("POST", "sys/policies/simulate", token, json=body)).status_code == 403
    assert (await node.call("POST", "sys/policies/simulate", "", json=body)).status_code == 403
    may = await node.token("tester", native("sys/policies/simulate", capabilities=("update",)))
    assert (await node.call("POST", "sys/policies/simulate", may, json=body)).status_code == 200


async def test_for_an_application(node: Node) -> None:
    """A trial for an application needs its policies' word as well, and shows the rules of both."""
    for name, path in (("host", "secrets/app/**"), ("shop", "secrets/app/db")):
        await node.call("PUT", f"sys/policies/acl/{name}", json={"policy": native(path)})
    both = {"policies": ["host"], "application_policies": ["shop"]}
    found = await tried(node, path="secrets/app/db", **both)
    assert found["allowed"] is True
    assert [step["policy"] for step in found["trace"]] == ["host", "shop"]
    found = await tried(node, path="secrets/app/key", **both)
    assert (found["allowed"], found["reason"]) == (False, "the application: no policy allows read")
    for allowed, more in ((True, {}), (False, {"application_policies": []})):
        assert (await tried(node, path="secrets/app/db", policies=["host"], **more))["allowed"] is allowed
    body = {"path": "secrets/x", "policies": ["root"], "application_policies": ["nobody-wrote-it"]}
    assert (await node.call("POST", "sys/policies/simulate", json=body)).status_code == 400


async def test_a_trial_tells_of_no_policy_that_the_caller_may_not_read(node: Node) -> None:
    """What is in a policy is told to those alone who may read it, and so is whether there is one."""
    await node.token("theirs", native("secrets/hidden-place/**"))
    document = native("sys/policies/simulate", capabilities=("update",))
    document["statements"] += native("sys/policies/acl/mine", capabilities=("read",))["statements"]
    may = await node.token("mine", document)
    for names, status in ((["mine"], 200), (["theirs"], 403), (["mine", "theirs"], 403), (["none"], 403)):
        body = {"path": "secrets/hidden-place/x", "policies": names}
        answer = await node.call("POST", "sys/policies/simulate", may, json=body)
        assert answer.status_code == status, names
        assert "hidden-place/**" not in answer.text
    body = {"path": "secrets/x", "policies": ["mine"], "application_policies": ["theirs"]}
    assert (await node.call("POST", "sys/policies/simulate", may, json=body)).status_code == 403
