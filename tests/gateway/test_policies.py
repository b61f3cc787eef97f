"""Policies over HTTP: both languages, clear refusals, what is built in, and what a list may tell."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from secrethub.errors import InvalidRequest
from secrethub.ids import new_uuid
from secrethub.operations.call import Call, Token
from secrethub.operations.perform import perform
from secrethub.sensitive import Sensitive
from tests.gateway.behind import reasons
from tests.gateway.conftest import ALONE, SHARING, Node, native
from tests.gateway.test_doors import through

pytestmark = SHARING

ACL = {"path": {"secret/data/app/*": {"capabilities": ["read"]}}}


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here that are not marked otherwise, each of which has names of its own."""
    return shared_node


async def write(node: Node, name: str, policy: Any, *, legacy: bool = False) -> Any:
    return await node.call(
        "PUT", f"sys/{'policy' if legacy else 'policies/acl'}/{name}", json={"policy": policy}
    )


@pytest.mark.parametrize("legacy", [False, True], ids=["acl", "legacy"])
async def test_both_languages_as_text_and_object(node: Node, legacy: bool) -> None:
    """A document is kept and given back as it was written, in force at once, under both paths."""
    documents = (
        ACL,
        native("secrets/app/**"),
        json.dumps(ACL, indent=4),
        json.dumps(native("secrets/app/**")),
    )
    before = (await node.call("LIST", "sys/policies/acl")).json()["data"]["keys"]
    assert {"default", "root"} <= set(before)
    names = [f"kept-{'legacy' if legacy else 'acl'}{number}" for number in range(len(documents))]
    await node.call("POST", "secrets/app/db", json={"data": {}})
    for name, document in zip(names, documents, strict=True):
        assert (await write(node, name, document, legacy=legacy)).status_code == 204
        new = (await node.call("GET", f"sys/policies/acl/{name}")).json()
        old = (await node.call("GET", f"sys/policy/{name}")).json()
        assert new["data"]["name"] == old["name"] == name
        assert new["data"]["policy"] == old["data"]["rules"] == new["policy"]
        kept = new["data"]["policy"]
        assert kept == document if isinstance(document, str) else json.loads(kept) == document
        made = await node.call("POST", "auth/token/create", json={"policies": [name]})
        token = made.json()["auth"]["client_token"]
        assert (await node.call("GET", "secrets/app/db", token)).status_code == 200
        assert (await node.call("GET", "secrets/other/db", token)).status_code == 403
    listed = (await node.call("LIST", "sys/policies/acl")).json()["data"]
    assert listed["keys"] == listed["policies"] == sorted([*before, *names])
    assert (await node.call("GET", "sys/policy")).json()["policies"] == listed["keys"]
    assert (await node.call("GET", "sys/policies/acl?list=true")).json()["keys"] == listed["keys"]
    assert (await node.call("LIST", "sys/policies/acl/")).json()["keys"] == listed["keys"]


@pytest.mark.parametrize("legacy", [False, True], ids=["acl", "legacy"])
async def test_documents_in_base64(node: Node, legacy: bool) -> None:
    """As in Vault, a document may come in base64, also in lines; it is kept as it was before that."""
    hcl = 'path "secret/data/app/*" { capabilities = ["read"] } # ä\n'
    await node.call("POST", "secrets/app/db", json={"data": {}})
    for number, text in enumerate((hcl, json.dumps(ACL), json.dumps(native("secrets/app/**")))):
        for encode in (base64.b64encode, base64.encodebytes):
            name = f"encoded{number}"
            written = await write(node, name, encode(text.encode()).decode(), legacy=legacy)
            assert written.status_code == 204, written.text
            assert (await node.call("GET", f"sys/policies/acl/{name}")).json()["data"]["policy"] == text
        made = await node.call("POST", "auth/token/create", json={"policies": [name]})
        token = made.json()["auth"]["client_token"]
        assert (await node.call("GET", "secrets/app/db", token)).status_code == 200
    for wrong in (
        "nothing",
        base64.b64encode(b"nothing").decode(),
        base64.b64encode(b"\xfe\xff").decode(),
        "AAAA",
    ):
        assert (await write(node, "encoded0", wrong, legacy=legacy)).status_code == 400, wrong
    assert (await node.call("GET", "sys/policies/acl/encoded0")).json()["data"]["policy"] == hcl


async def test_invalid_documents_say_where(node: Node) -> None:
    """What is not understood is refused with its place, and nothing is kept."""
    statement = {"effect": "allow", "paths": ["secrets/a"], "capabilities": ["read"]}
    for policy, part in (
        ("", "empty"),
        ("   ", "empty"),
        ("{", "line 1"),
        ('path "secret/*" { capabilities = ["read" }', "line 1, column 42"),
        ({}, "$"),
        ({"version": "2", "statements": []}, "$.version"),
        ({"version": "1", "statements": [statement], "path": {}}, "either"),
        ({"version": "1", "statements": [{**statement, "conditions": {}}]}, "$.statements[0].conditions"),
        ({"version": "1", "statements": [{**statement, "effect": "maybe"}]}, "$.statements[0].effect"),
        ({"version": "1", "statements": [{**statement, "paths": []}]}, "$.statements[0].paths"),
        ({"version": "1", "statements": [{**statement, "paths": ["secret/data/a"]}]}, "secrets/"),
        ({"version": "1", "statements": [{**statement, "paths": ["a/../b"]}]}, "$.statements[0].paths[0]"),
        ({"version": "1", "statements": [{**statement, "capabilities": ["fly"]}]}, "capabilities[0]"),
        ({"version": "1", "statements": [statement], "extra": 1}, "extra"),
        ({"path": {"secrets/app/*": {"capabilities": ["read"]}}}, "secret/data/"),
        ({"path": {"secret/*": {"capabilities": ["read"], "mfa_methods": []}}}, "mfa_methods"),
        ({"path": {"secret/*": {"capabilities": "read"}}}, "capabilities"),
        ({"path": {"secret/*": {"capabilities": ["fly"]}}}, "fly"),
        ('{"path": {"a": {}, "a": {}}}', "a"),
        ('{"path": {"a\\u0000": {}}}', "path"),
        ("[" * 50_000, "HCL"),
        ('{"path": ' + '{"a":' * 20_000, "policy"),
        ('{"version": "1", "statements": [' + "1" * 5000 + "]}", ""),
        ("x" * 300_000, ""),
    ):
        refused = await write(node, "wrong", policy)
        assert refused.status_code == 400, policy
        assert part in refused.json()["errors"][0], (policy, refused.text)
    assert (await node.call("GET", "sys/policies/acl/wrong")).status_code == 404


async def test_bodies_are_strict(node: Node) -> None:
    """Beside the document nothing is taken, for what is ignored might have narrowed it."""
    for body in (
        {},
        {"policy": None},
        {"policy": ACL, "ttl": "1h"},
        {"policy": 1},
        {"policy": []},
        {"polic": ACL},
    ):
        refused = await node.call("PUT", "sys/policies/acl/strict", json=body)
        assert refused.status_code == 400, body
    assert (await node.call("PUT", "sys/policy/strict", json={"rules": json.dumps(ACL)})).status_code == 204


async def test_root_and_default(node: Node) -> None:
    """``root`` is neither written nor deleted, ``default`` is written but never deleted."""
    for prefix in ("sys/policies/acl", "sys/policy"):
        for method in ("PUT", "DELETE"):
            refused = await node.call(method, f"{prefix}/root", json={"policy": ACL})
            assert refused.status_code == 400
            assert "root" in refused.json()["errors"][0]
        assert (await node.call("GET", f"{prefix}/root")).status_code == 200
        assert (await node.call("DELETE", f"{prefix}/default")).status_code == 400
    kept = json.loads((await node.call("GET", "sys/policies/acl/default")).json()["policy"])
    assert sorted(kept["path"]) == [
        "agents/enroll",
        "agents/enroll/begin",
        "auth/token/lookup-self",
        "auth/token/renew-self",
        "auth/token/revoke-self",
        "cubbyhole/*",
        "sys/capabilities-self",
        "sys/internal/ui/mounts",
        "sys/internal/ui/mounts/*",
        "sys/leases/lookup",
        "sys/leases/renew",
        "sys/leases/revoke",
        "sys/renew",
        "sys/tools/hash",
        "sys/tools/hash/*",
        "sys/wrapping/lookup",
        "sys/wrapping/unwrap",
        "sys/wrapping/wrap",
    ]
    for policy in (ACL, kept):
        assert (await write(node, "default", policy)).status_code == 204


async def test_names_of_policies(node: Node) -> None:
    """A name has no case, and no spelling of it leads past a rule or to what is built in."""
    for prefix, shown in (("sys/policies/acl", "policy"), ("sys/policy", "rules")):
        assert (await node.call("PUT", f"{prefix}/ZZ", json={"policy": ACL})).status_code == 204
        for name in ("ZZ", "zZ", "zz", "%5aZ"):
            data = (await node.call("GET", f"{prefix}/{name}")).json()["data"]
            assert data["name"] == "zz"
            assert json.loads(data[shown]) == ACL
        assert "zz" in (await node.call("LIST", "sys/policies/acl")).json()["keys"]
        assert (await node.call("DELETE", f"{prefix}/Zz")).status_code == 204
        assert (await node.call("GET", f"{prefix}/ZZ")).status_code == 404
        for method, name in (("PUT", "ROOT"), ("DELETE", "Root"), ("DELETE", "Default")):
            refused = await node.call(method, f"{prefix}/{name}", json={"policy": ACL})
            assert refused.status_code == 400, (method, name)
    for name in ("a%20b", "ä", "a*", "x" * 129, "a:b"):
        assert (await write(node, name, ACL)).status_code == 400, name
    rules = {
        "path": {
            "sys/policies/acl/*": {"capabilities": ["create", "update", "read", "delete"]},
            "sys/policies/acl/admin": {"capabilities": ["deny"]},
        }
    }
    token = await node.token("author", rules)
    body = {"policy": {"path": {"*": {"capabilities": ["sudo", "read"]}}}}
    assert (await node.call("PUT", "sys/policies/acl/admin", token, json=body)).status_code == 403
    assert (await node.call("PUT", "sys/policies/acl/ADMIN", token, json=body)).status_code == 403
    call = Call(
        method="write",
        path="sys/policies/acl/ADMIN",
        credential=Token(secret=Sensitive(token)),
        client_address=None,
        door="http",
        request_id=new_uuid(),
        body=json.dumps(body).encode(),
    )
    with pytest.raises(InvalidRequest, match="lower case"):
        await perform(node.process.core, call)
    assert (await node.call("GET", "sys/policies/acl/admin")).status_code == 404


@pytest.mark.parametrize("language", ["native", "acl"])
async def test_rules_about_policies_have_no_case(node: Node, language: str) -> None:
    """A rule that names a policy in capitals speaks of the one that there is, in grants and denials."""
    whole = ("create", "update", "read", "delete")
    if language == "native":
        rules = native("sys/policies/acl/Team-*", capabilities=whole)
        denial = native("sys/policies/acl/Team-Root", capabilities=("*",), effect="deny")
        rules["statements"] += denial["statements"]
    else:
        rules = {
            "path": {
                "sys/policies/acl/Team-*": {"capabilities": list(whole)},
                "sys/policies/acl/Team-Root": {"capabilities": ["deny"]},
            }
        }
    token = await node.token("author-of-teams", rules)
    for name, status in (("Team-A", 204), ("team-a", 204), ("team-root", 403), ("TEAM-ROOT", 403)):
        answer = await node.call("PUT", f"sys/policies/acl/{name}", token, json={"policy": ACL})
        assert answer.status_code == status, name
    assert (await node.call("GET", "sys/policies/acl/TEAM-A", token)).status_code == 200


async def test_missing_and_deleted(node: Node) -> None:
    """A missing policy is missing; deleting one twice is no error; writing again replaces it."""
    assert (await node.call("GET", "sys/policies/acl/none")).json()["errors"] == []
    assert (await node.call("DELETE", "sys/policies/acl/none")).status_code == 204
    await write(node, "gone", ACL)
    await write(node, "gone", native("secrets/b"))
    assert json.loads((await node.call("GET", "sys/policy/gone")).json()["rules"]) == native("secrets/b")
    assert (await node.call("DELETE", "sys/policies/acl/gone")).status_code == 204
    assert (await node.call("GET", "sys/policies/acl/gone")).status_code == 404


async def test_both_languages_together(node: Node) -> None:
    """One language's denial holds against the other's grant; silence of one takes nothing from the other."""
    for path in ("both/a", "both/b", "both/c"):
        await node.call("POST", f"secrets/{path}", json={"data": {}})
    await write(node, "acl", {"path": {"secret/data/both/*": {"capabilities": ["read"]}}})
    await write(node, "acl-deny", {"path": {"secret/data/both/b": {"capabilities": ["deny"]}}})
    await write(node, "native", native("secrets/both/*", capabilities=("read", "delete")))
    await write(node, "native-deny", native("secrets/both/c", capabilities=("*",), effect="deny"))
    made = await node.call(
        "POST", "auth/token/create", json={"policies": ["acl", "acl-deny", "native", "native-deny"]}
    )
    token = made.json()["auth"]["client_token"]
    for path, status in (("both/a", 200), ("both/b", 403), ("both/c", 403), ("other", 403)):
        assert (await node.call("GET", f"secrets/{path}", token)).status_code == status
        assert (await node.call("GET", f"secret/data/{path}", token)).status_code == status
    assert (await node.call("DELETE", "secrets/both/a", token)).status_code == 204
    assert (await node.call("DELETE", "secrets/both/c", token)).status_code == 403
    assert (await node.call("POST", "secrets/both/a", token, json={"data": {}})).status_code == 403


async def test_create_and_update_are_different_rights(node: Node) -> None:
    """Who may create may not change what is there, and the other way round."""
    creates = await node.token("creates", {"path": {"secret/data/*": {"capabilities": ["create"]}}})
    updates = await node.token("updates", native("secrets/**", capabilities=("update",)))
    assert (await node.call("POST", "secrets/n", updates, json={"data": {}})).status_code == 403
    assert (await node.call("POST", "secrets/n", creates, json={"data": {}})).status_code == 200
    assert (await node.call("POST", "secrets/n", creates, json={"data": {}})).status_code == 403
    assert (await node.call("PUT", "secret/data/n", updates, json={"data": {}})).status_code == 200


async def test_creating_is_not_updating_in_a_race(node: Node) -> None:
    """Of writers that may only create one makes the secret, and none of them writes over it."""
    creates = await node.token("race", {"path": {"secret/data/*": {"capabilities": ["create"]}}})
    both = await node.token("race-both", native("secrets/**", capabilities=("create", "update")))
    for number in range(3):
        path = f"secrets/race{number}"
        answers = await asyncio.gather(
            *(node.call("POST", path, creates, json={"data": {"n": n}}) for n in range(8))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [403] * 7
        assert (await node.call("GET", path)).json()["data"]["metadata"]["version"] == 1
        path = f"secrets/both{number}"
        answers = await asyncio.gather(*(node.call("POST", path, both, json={"data": {}}) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert (await node.call("GET", path)).json()["data"]["metadata"]["version"] == 8


@ALONE
async def test_sudo_is_asked_for(own: Node) -> None:
    """Sealing and verifying the ledger need sudo beside the capability; mounting does not, as in Vault."""
    node = own
    rules = {"path": {"sys/*": {"capabilities": ["create", "update", "read"]}}}
    plain = await node.token("plain", rules)
    for path in ("sys/seal", "sys/audit/verify"):
        assert (await node.call("PUT", path, plain, json={})).status_code == 403, path
    made = await node.call("PUT", "sys/mounts/new", plain, json={"type": "kv-v2"})
    assert made.status_code == 204
    rules["path"]["sys/*"]["capabilities"].append("sudo")
    trusted = await node.token("trusted", rules)
    for path in ("sys/audit/verify", "sys/seal"):
        assert (await node.call("PUT", path, trusted, json={})).status_code in {200, 204}, path


async def test_a_list_leaves_out_what_is_denied(node: Node) -> None:
    """A list that is allowed tells nothing of names that a more specific rule denies."""
    for path in ("tree/a", "tree/hidden/x", "tree/hidden/y", "tree/b", "tree/c/d"):
        await node.call("POST", f"secrets/{path}", json={"data": {}})
    full = ["a", "b", "c/", "hidden/"]
    assert (await node.call("LIST", "secrets/tree")).json()["data"]["keys"] == full
    both = native("secrets/**", capabilities=("list",))
    both["statements"] += native(
        "secrets/tree/hidden/**", "secrets/tree/b", capabilities=("*",), effect="deny"
    )["statements"]
    acl = {
        "path": {
            "secret/metadata/*": {"capabilities": ["list"]},
            "secret/metadata/tree/hidden/*": {"capabilities": ["deny"]},
            "secret/metadata/tree/b": {"capabilities": ["deny"]},
        }
    }
    for name, policy in (("native-list", both), ("acl-list", acl)):
        token = await node.token(name, policy)
        for path in ("secrets/tree", "secret/metadata/tree", "secret/metadata/tree/"):
            assert (await node.call("LIST", path, token)).json()["data"]["keys"] == ["a", "c/"], (name, path)
        inside = await node.call("LIST", "secrets/tree/hidden", token)
        assert inside.status_code in {403, 404}
        assert inside.json().get("data") is None


async def test_a_list_is_filled_up_after_what_is_denied(node: Node) -> None:
    """Names that are left out do not shorten a page, so that paging reaches the end."""
    for number in range(10):
        await node.call("POST", f"secrets/many/{number}", json={"data": {}})
    policy = native("secrets/**", capabilities=("list",))
    policy["statements"] += native(
        *(f"secrets/many/{number}" for number in range(6)), capabilities=("list",), effect="deny"
    )["statements"]
    token = await node.token("pages", policy)
    seen: list[str] = []
    while True:
        after = seen[-1] if seen else ""
        page = await node.call("GET", f"secrets/many?list=true&limit=2&after={after}", token)
        if page.status_code == 404:
            break
        assert len(page.json()["data"]["keys"]) == 2
        seen += page.json()["data"]["keys"]
    assert seen == ["6", "7", "8", "9"]


@ALONE
async def test_the_top_of_a_store_is_listed_by_its_name(own: Node) -> None:
    """Native rules name the top of a store as a person writes it, in the flat view and in other stores."""
    node = own
    await node.call("POST", "sys/mounts/team", json={"type": "kv-v2"})
    for path in ("secrets/a", "team/data/b"):
        await node.call("POST", path, json={"data": {}})
    token = await node.token("top", native("secrets/**", "team", capabilities=("list",)))
    for path, keys in (("secrets", ["a"]), ("secret/metadata/", ["a"]), ("team/metadata", ["b"])):
        assert (await node.call("LIST", path, token)).json()["data"]["keys"] == keys, path
    below = await node.token("below", native("secrets/x/**", capabilities=("list",)))
    assert (await node.call("LIST", "secrets", below)).status_code == 403


async def test_a_denial_by_the_endpoints_path_protects(node: Node) -> None:
    """A native denial that names the endpoint instead of the secret denies, and the reason names it."""
    options = {"type": "kv-v2"}
    assert (await node.call("POST", "sys/mounts/apps", json=options)).status_code in {200, 204}
    await node.call("POST", "apps/data/open", json={"data": {"k": 1}})
    await node.call("POST", "apps/data/closed", json={"data": {"k": 1}})
    statements = [
        {"effect": "allow", "paths": ["apps/**"], "capabilities": ["read"]},
        {"effect": "deny", "paths": ["apps/data/closed"], "capabilities": ["*"]},
    ]
    token = await node.token("endpoint", {"version": "1", "statements": statements})
    assert (await node.call("GET", "apps/data/open", token)).status_code == 200
    assert (await node.call("GET", "apps/data/closed", token)).status_code == 403
    assert "denied by policy endpoint, rule apps/data/closed" in await reasons(
        node.settings.database_url, outcome="denied"
    )


async def test_lists_of_names_leave_out_what_is_denied(node: Node) -> None:
    """Policies and roles that a rule denies are in no list."""
    for name in ("open", "closed"):
        await write(node, name, ACL)
        await node.call("POST", f"auth/approle/role/{name}", json={})
    token = await node.token(
        "lister",
        {
            "path": {
                "sys/policies/acl": {"capabilities": ["list"]},
                "sys/policies/acl/closed": {"capabilities": ["deny"]},
                "auth/approle/role": {"capabilities": ["list"]},
                "auth/approle/role/closed": {"capabilities": ["deny"]},
            }
        },
    )
    policies = (await node.call("LIST", "sys/policies/acl", token)).json()["data"]["keys"]
    assert "open" in policies
    assert "closed" not in policies
    roles = (await node.call("LIST", "auth/approle/role", token)).json()["data"]["keys"]
    assert roles == ["open"]


async def test_whether_a_name_is_one_is_told_only_to_whoever_may_ask(node: Node) -> None:
    """A bad name is a refusal for a token without a grant, and an explanation for others."""
    token = await node.token("nothing", native("secrets/x"))
    assert (await node.call("POST", "auth/approle/role/bad%20name", token, json={})).status_code == 403
    assert (await node.call("POST", "auth/approle/role/bad%20name", json={})).status_code == 400


async def test_hcl_means_what_its_json_form_means(node: Node) -> None:
    """A policy in HCL is kept as written, and decides on capabilities and parameters."""
    source = """
# of the application
path "secret/data/hcl/*" {
  capabilities       = ["create", "update", "read"]
  allowed_parameters = { "data" = [], "options" = [] }
  denied_parameters  = { "options" = [{ cas = 0 }] }
}
"""
    assert (await write(node, "hcl", source)).status_code == 204
    assert (await node.call("GET", "sys/policies/acl/hcl")).json()["data"]["policy"] == source
    made = await node.call("POST", "auth/token/create", json={"policies": ["hcl"]})
    token = made.json()["auth"]["client_token"]
    for path, body, status in (
        ("secret/data/hcl/a", {"data": {"k": 1}}, 200),
        ("secret/data/hcl/a", {"data": {"k": 1}, "options": {"cas": 1}}, 200),
        ("secret/data/hcl/b", {"data": {"k": 1}, "options": {"cas": 0}}, 403),
        ("secret/data/hcl/a", {"data": {"k": 1}, "extra": 1}, 403),
        ("secret/data/hcl/a", [1], 403),
        ("secret/data/other", {"data": {"k": 1}}, 403),
    ):
        answer = await node.call("POST", path, token, json=body)
        assert answer.status_code == status, (path, body, answer.text)
    assert (await node.call("GET", "secret/data/hcl/a", token)).status_code == 200
    assert (await node.call("GET", "secret/data/hcl/a?version=1", token)).status_code == 403


async def test_parameters_are_those_that_are_read(node: Node) -> None:
    """What an operation does not read, by another spelling or in another place, satisfies no rule."""
    source = """
path "auth/token/create" {
  capabilities        = ["update"]
  allowed_parameters  = { "ttl" = ["1h"], "policies" = [] }
  required_parameters = ["ttl"]
}
path "secret/data/read/*" {
  capabilities       = ["read"]
  allowed_parameters = { "version" = ["1"] }
}
"""
    await node.call("POST", "secrets/read/a", json={"data": {"k": 1}})
    await node.call("POST", "secrets/read/a", json={"data": {"k": 2}})
    token = await node.token("narrow", source)
    for body, query, status in (
        ({"ttl": "1h"}, "", 200),
        ({"ttl": "99h", "TTL": "1h"}, "", 403),
        ({"TTL": "1h"}, "", 403),
        ({"ttl": None}, "", 403),
        ({"policies": ["narrow"]}, "?ttl=1h", 403),
        (None, "?ttl=1h", 403),
    ):
        answer = await node.call("POST", "auth/token/create" + query, token, json=body)
        assert answer.status_code == status, (body, query, answer.text)
    for query, body, status in (
        ("?version=1", None, 200),
        ("?version=2", None, 403),
        ("?version=2", {"version": "1"}, 403),
    ):
        answer = await node.call("GET", "secret/data/read/a" + query, token, json=body)
        assert answer.status_code == status, (query, body, answer.text)


async def test_conditions(node: Node) -> None:
    """Conditions are asked at each request: address, time, life of the token; a denial says which failed."""
    await node.call("POST", "secrets/app/db", json={"data": {"k": "v"}})
    now = datetime.now(UTC)
    today, yesterday = now.date().isoformat(), (now - timedelta(days=2)).date().isoformat()
    for name, conditions, status in (
        ("here", {"source_ip": ["127.0.0.0/8"]}, 200),
        ("there", {"source_ip": ["192.0.2.0/24"]}, 403),
        ("today", {"dates": {"from": yesterday, "until": (now + timedelta(days=2)).date().isoformat()}}, 200),
        ("over", {"dates": {"until": yesterday}}, 403),
        ("brief", {"max_ttl": "10m"}, 403),
        ("long", {"max_ttl": "30d", "dates": {"from": yesterday}}, 403),
        ("wrapped", {"wrapping": True}, 403),
    ):
        document = native("secrets/app/*")
        document["statements"][0]["conditions"] = conditions
        token = await node.token(name, document)
        for _ in range(2):
            answer = await node.call("GET", "secrets/app/db", token)
            assert answer.status_code == status, (name, today)
        short = await node.token(name, document, ttl="5m")
        expected = 200 if name in {"brief", "long"} else status
        assert (await node.call("GET", "secrets/app/db", short)).status_code == expected, name
    told = await reasons(node.settings.database_url, outcome="denied")
    assert "no policy allows read; source_ip of policy there, rule secrets/app/*, does not hold" in told


async def test_a_conditional_denial_holds_where_nothing_is_known(node: Node) -> None:
    """A denial for some network denies through Ray Serve's ingress, where no address is known."""
    await node.call("POST", "secrets/app/db", json={"data": {"k": "v"}})
    statements = [
        {"effect": "allow", "paths": ["secrets/app/*"], "capabilities": ["read"]},
        {
            "effect": "deny",
            "paths": ["secrets/app/*"],
            "capabilities": ["*"],
            "conditions": {"source_ip": ["192.0.2.0/24"]},
        },
    ]
    token = await node.token("elsewhere", {"version": "1", "statements": statements})
    headers = ((b"host", b"localhost"), (b"x-vault-token", token.encode()))
    assert (await through(node, "http", "GET", "/v1/secrets/app/db", headers=headers))[0] == 200
    assert (await through(node, "serve", "GET", "/v1/secrets/app/db", headers=headers))[0] == 403
    elsewhere = ("192.0.2.7", 5)
    assert (await through(node, "tls", "GET", "/v1/secrets/app/db", headers=headers, client=elsewhere))[
        0
    ] == 403
