"""Response wrapping: an answer is kept for whoever holds the token, and given out once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from secrethub.auth.digests import token_digest
from secrethub.storage.authority import CUBBYHOLES, TOKENS
from tests.gateway.authority_core import MovingClock
from tests.gateway.behind import entries, holes, ledger_is_good, sql
from tests.gateway.conftest import ALONE, SHARING, Node, native
from tests.gateway.kv import ok
from tests.gateway.test_tamper import put_back, reported, saved

pytestmark = SHARING
ENVELOPE = {
    "auth",
    "data",
    "lease_duration",
    "lease_id",
    "renewable",
    "request_id",
    "warnings",
    "wrap_info",
}
INFO = {"token", "accessor", "ttl", "creation_time", "creation_path", "wrapped_accessor"}
INVALID = ["wrapping token is not valid or does not exist"]


async def with_a_secret(node: Node) -> Node:
    await ok(node, "POST", "secrets/app/db", {"data": {"k": "canary-wrapped"}})
    return node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(shared_node: Node) -> Node:
    """A node of all tests here with a secret, which none of them changes."""
    return await with_a_secret(shared_node)


@pytest.fixture
async def own_hub(own: Node) -> Node:
    """A node of one test alone, with a secret."""
    return await with_a_secret(own)


async def wrap(
    node: Node, method: str, path: str, token: str | None = None, ttl: str = "60", **options: Any
) -> Any:
    return await node.call(method, path, token, headers={"X-Vault-Wrap-TTL": ttl}, **options)


async def kept(
    node: Node, method: str, path: str, token: str | None = None, **options: Any
) -> dict[str, Any]:
    """Ask for a wrapped answer, check that there is nothing else in it, and return its wrap_info."""
    answer = await wrap(node, method, path, token, **options)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    info: dict[str, Any] = body["wrap_info"]
    assert (set(info), set(body)) == (INFO, ENVELOPE)
    assert body["data"] is body["auth"] is body["warnings"] is None
    return info


async def unwrap(node: Node, wrapping: str) -> Any:
    return await node.call("POST", "sys/wrapping/unwrap", wrapping)


async def test_any_read(hub: Node) -> None:
    """The answer to a read is kept, found out about, and opened once, with the token as the caller's own."""
    before = await holes(hub)
    info = await kept(hub, "GET", "secrets/app/db", ttl="5m")
    assert info["token"].startswith("hvs.")
    assert (info["ttl"], info["creation_path"], info["wrapped_accessor"]) == (300, "secrets/app/db", "")
    looked = await hub.call("POST", "sys/wrapping/lookup", "", json={"token": info["token"]})
    told = looked.json()["data"]
    assert (told["creation_ttl"], told["creation_path"]) == (300, "secrets/app/db")
    assert told["creation_time"][:19] == info["creation_time"][:19]
    answer = await unwrap(hub, info["token"])
    assert answer.json()["data"]["data"] == {"k": "canary-wrapped"}
    assert answer.json()["wrap_info"] is None
    assert (await unwrap(hub, info["token"])).status_code == 403
    for path in ("unwrap", "rewrap", "lookup"):
        again = await hub.call("POST", f"sys/wrapping/{path}", json={"token": info["token"]})
        assert (again.status_code, again.json()["errors"]) == (400, INVALID)
    assert await holes(hub) <= before


async def test_any_answer(hub: Node) -> None:
    """Lists, what ``sys`` repeats at the top, and what takes a body: each is kept as it is, and opened so."""
    await ok(hub, "PUT", "sys/policies/acl/x", {"policy": native("secrets/app/db")})
    await ok(hub, "POST", "cubbyhole/own", {"k": "canary-wrapped"})
    await ok(hub, "POST", "auth/approle/role/web", {})
    for method, path, body in (
        ("LIST", "secrets/app", None),
        ("GET", "secret/data/app/db?version=1", None),
        ("GET", "secret/subkeys/app/db", None),
        ("GET", "cubbyhole/own", None),
        ("GET", "sys/mounts", None),
        ("GET", "sys/policies/acl/x", None),
        ("GET", "sys/policy/x", None),
        ("GET", "auth/approle/role/web/role-id", None),
        ("POST", "sys/capabilities-self", {"paths": ["a", "b"]}),
        ("POST", "sys/tools/hash", {"input": "YQ=="}),
    ):
        plain = (await hub.call(method, path, json=body)).json()
        info = await kept(hub, method, path, json=body)
        assert info["creation_path"] == path.partition("?")[0]
        opened = (await unwrap(hub, info["token"])).json()
        assert opened["data"] == plain["data"] is not None, path


async def test_opened_by_somebody_with_a_token(hub: Node) -> None:
    """The wrapping token may come in the body; then the caller's own rights let it in."""
    info = await kept(hub, "GET", "secrets/app/db")
    caller = await hub.token("caller", native("secrets/none"))
    bare = await hub.token("bare", native("secrets/none"), no_default_policy=True)
    body = {"token": info["token"]}
    assert (await hub.call("POST", "sys/wrapping/unwrap", bare, json=body)).status_code == 403
    assert (await hub.call("POST", "sys/wrapping/unwrap", "", json=body)).status_code == 403
    opened = await hub.call("POST", "sys/wrapping/unwrap", caller, json=body)
    assert opened.json()["data"]["data"] == {"k": "canary-wrapped"}


async def test_logins_and_credentials(hub: Node) -> None:
    """Tokens of logins and creations, and SecretIDs, are kept, with the accessor of the token inside."""
    await hub.call("POST", "auth/approle/role/web", json={"token_policies": ["default"]})
    role_id = (await hub.call("GET", "auth/approle/role/web/role-id")).json()["data"]["role_id"]
    made = await kept(hub, "POST", "auth/approle/role/web/secret-id")
    assert made["creation_path"] == "auth/approle/role/web/secret-id"
    secret_id = (await unwrap(hub, made["token"])).json()["data"]["secret_id"]
    login = {"role_id": role_id, "secret_id": secret_id}
    for info in (
        await kept(hub, "POST", "auth/approle/login", "", json=login),
        await kept(hub, "POST", "auth/token/create", json={"policies": ["default"]}),
    ):
        auth = (await unwrap(hub, info["token"])).json()["auth"]
        assert auth["accessor"] == info["wrapped_accessor"]
        assert (await hub.call("GET", "auth/token/lookup-self", auth["client_token"])).status_code == 200


async def test_only_unwrapping(hub: Node) -> None:
    """A wrapping token opens and does nothing else, and is not used up by trying."""
    info = await kept(hub, "GET", "secrets/app/db")
    for method, path in (
        ("GET", "secrets/app/db"),
        ("GET", "auth/token/lookup-self"),
        ("POST", "auth/token/renew-self"),
        ("POST", "auth/token/create"),
        ("GET", "cubbyhole/response"),
        ("LIST", "cubbyhole"),
        ("POST", "sys/wrapping/rewrap"),
        ("POST", "sys/wrapping/wrap"),
        ("POST", "sys/capabilities-self"),
    ):
        assert (await hub.call(method, path, info["token"])).status_code == 403, path
    other = await kept(hub, "GET", "secrets/app/db")
    # As another's token it opens another's answer, of which it has the token.
    opened = await hub.call("POST", "sys/wrapping/unwrap", info["token"], json={"token": other["token"]})
    assert opened.status_code == 200
    assert (await unwrap(hub, info["token"])).status_code == 200


async def test_wrapping_anything(hub: Node) -> None:
    """Any object is kept, with its nulls; without a time it is refused, in Vault's words."""
    refused = await hub.call("POST", "sys/wrapping/wrap", json={"a": 1})
    assert refused.json()["errors"] == ["endpoint requires response wrapping to be used"]
    info = await kept(hub, "POST", "sys/wrapping/wrap", json={"a": 1, "b": None, "c": {"d": [True]}})
    assert info["creation_path"] == "sys/wrapping/wrap"
    opened = (await unwrap(hub, info["token"])).json()
    assert opened["data"] == {"a": 1, "b": None, "c": {"d": [True]}}


async def test_rewrapping(hub: Node) -> None:
    """A new token takes the old one's place, for as long again, and says where the answer comes from."""
    old = await kept(hub, "POST", "auth/token/create", json={"policies": ["default"]}, ttl="2m")
    renewed = await hub.call("POST", "sys/wrapping/rewrap", json={"token": old["token"]})
    new = renewed.json()["wrap_info"]
    assert set(new) == INFO
    assert new["token"] != old["token"]
    for name in ("ttl", "creation_path", "wrapped_accessor"):
        assert new[name] == old[name]
    assert (await unwrap(hub, old["token"])).status_code == 403
    assert (await unwrap(hub, new["token"])).json()["auth"]["accessor"] == new["wrapped_accessor"]
    assert (await unwrap(hub, new["token"])).status_code == 403
    text = (await hub.call("POST", "sys/wrapping/rewrap", json={"token": "hvs.none"})).json()
    assert text["errors"] == INVALID


@ALONE
async def test_it_expires(own_hub: Node) -> None:
    """After its time nothing is opened, and tidying removes it."""
    clock = MovingClock()
    own_hub.process.core.clock = clock
    clock.ahead = timedelta(minutes=-10)
    info = await kept(own_hub, "GET", "secrets/app/db")
    clock.ahead = timedelta(minutes=-9, seconds=1)
    for path in ("unwrap", "rewrap", "lookup"):
        answer = await own_hub.call("POST", f"sys/wrapping/{path}", json={"token": info["token"]})
        assert answer.json()["errors"] == INVALID
    clock.ahead = timedelta()
    assert (await own_hub.call("POST", "auth/token/tidy")).status_code == 202
    assert await sql(own_hub.settings.database_url, "SELECT 1 FROM cubbyholes") == []


async def test_it_can_be_taken_back(hub: Node) -> None:
    """Whoever wrapped an answer revokes it by the accessor of its token."""
    before = await holes(hub)
    info = await kept(hub, "GET", "secrets/app/db")
    revoked = await hub.call("POST", "auth/token/revoke-accessor", json={"accessor": info["accessor"]})
    assert revoked.status_code == 204
    assert (await unwrap(hub, info["token"])).status_code == 403
    assert await holes(hub) <= before


async def test_one_of_many_opens_it(hub: Node) -> None:
    """Of twenty who open at the same time, half of them with a token of their own, one is answered."""
    for _ in range(5):
        info = await kept(hub, "GET", "secrets/app/db")
        answers = await asyncio.gather(
            *(unwrap(hub, info["token"]) for _ in range(10)),
            *(hub.call("POST", "sys/wrapping/unwrap", json={"token": info["token"]}) for _ in range(10)),
        )
        codes = sorted(answer.status_code for answer in answers)
        assert codes.count(200) == 1
        assert set(codes) <= {200, 400, 403}
        assert sum("canary-wrapped" in answer.text for answer in answers) == 1


async def test_one_of_many_opens_it_or_wraps_it_anew(hub: Node) -> None:
    """Of ten who open and ten who wrap anew at the same time one gets the answer, and it opens once more."""
    before = await holes(hub)
    for _ in range(5):
        body = {"token": (await kept(hub, "GET", "secrets/app/db"))["token"]}
        answers = await asyncio.gather(
            *(
                hub.call("POST", f"sys/wrapping/{path}", json=body)
                for path in ("unwrap", "rewrap")
                for _ in range(10)
            )
        )
        (got,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} == {200, 400}
        if got["wrap_info"] is not None:
            got = (await unwrap(hub, got["wrap_info"]["token"])).json()
        assert got["data"]["data"] == {"k": "canary-wrapped"}
        assert await holes(hub) <= before


async def test_what_is_kept_ends_all_the_same(hub: Node) -> None:
    """A wrapped token is worth nothing once that which it was made from is revoked."""
    maker = await hub.token("maker", native("auth/token/create", capabilities=("update",)))
    info = await kept(hub, "POST", "auth/token/create", maker, json={})
    await ok(hub, "POST", "auth/token/revoke", {"token": maker})
    inner = (await unwrap(hub, info["token"])).json()["auth"]["client_token"]
    assert (await hub.call("GET", "auth/token/lookup-self", inner)).status_code == 403


async def test_nobody_prolongs_it(hub: Node) -> None:
    """Whoever may renew every token renews no wrapping token, and it stays what it is."""
    info = await kept(hub, "GET", "secrets/app/db")
    for path, body in (
        ("auth/token/renew", {"token": info["token"], "increment": "10h"}),
        ("auth/token/renew-accessor", {"accessor": info["accessor"], "increment": "10h"}),
    ):
        assert (await hub.call("POST", path, json=body)).status_code == 400, path
    told = (await hub.call("POST", "auth/token/lookup", json={"token": info["token"]})).json()["data"]
    assert (told["policies"], told["renewable"], told["orphan"]) == (["response-wrapping"], False, True)
    assert told["ttl"] <= 60


@pytest.mark.parametrize("ttl", ["0", "0s", ""])
async def test_no_time_is_no_wrapping(hub: Node, ttl: str) -> None:
    """A time of nothing asks for nothing."""
    answer = await wrap(hub, "GET", "secrets/app/db", ttl=ttl)
    assert answer.json()["data"]["data"] == {"k": "canary-wrapped"}


@pytest.mark.parametrize("ttl", ["-1", "soon", "769h", "1.5", "true", "500ms"])
async def test_times_that_cannot_be(hub: Node, ttl: str) -> None:
    """A time that is none is refused, for the answer must not come in clear."""
    answer = await wrap(hub, "GET", "secrets/app/db", ttl=ttl)
    assert answer.status_code == 400
    assert "canary" not in answer.text


async def test_what_cannot_be_wrapped(hub: Node) -> None:
    """Answers that are no envelope, and those that open something, say so and do nothing."""
    for method, path in (
        ("GET", "sys/health"),
        ("GET", "sys/seal-status"),
        ("PUT", "sys/unseal"),
        ("PUT", "sys/init"),
        ("PUT", "sys/seal"),
        ("GET", "pki/ca/pem"),
        ("POST", "sys/wrapping/unwrap"),
        ("POST", "sys/wrapping/rewrap"),
    ):
        answer = await wrap(hub, method, path, json={"token": "x"} if method == "POST" else None)
        assert answer.status_code == 400, path
        assert "cannot be wrapped" in answer.json()["errors"][0], path
    headers = {"X-Vault-Wrap-TTL": "60", "Accept": "application/x-ndjson"}
    streamed = await hub.call("POST", "sys/audit/verify", headers=headers)
    assert "cannot be wrapped" in streamed.json()["errors"][0]
    assert (await hub.call("GET", "secrets/app/db")).status_code == 200
    jwt = {"X-Vault-Wrap-TTL": "60", "X-Vault-Wrap-Format": "jwt"}
    assert (await hub.call("GET", "secrets/app/db", headers=jwt)).status_code == 400


async def test_what_needs_no_token(hub: Node) -> None:
    """Strangers have nothing kept: an answer that anybody may read is not wrapped."""
    before = await holes(hub)
    for path, body in (("pki/cert/ca", None), ("sys/wrapping/lookup", {"token": "x"})):
        answer = await wrap(hub, "POST" if body else "GET", path, "", json=body)
        assert answer.status_code == 400, path
        assert "cannot be wrapped" in answer.json()["errors"][0]
    assert await holes(hub) <= before


async def test_answers_without_content(hub: Node) -> None:
    """A write that says nothing, a refusal and an error are answered as they are."""
    before = await holes(hub)
    written = await wrap(hub, "PUT", "sys/policies/acl/x", json={"policy": native("secrets/a")})
    assert written.status_code == 204
    missing = await wrap(hub, "GET", "secrets/none")
    assert (missing.status_code, missing.json()["errors"]) == (404, [])
    token = await hub.token("reader", native("secrets/other"))
    assert (await wrap(hub, "GET", "secrets/app/db", token)).status_code == 403
    assert await holes(hub) <= before


async def test_a_deleted_version(hub: Node) -> None:
    """What is answered with 404 and data is kept, and opened as it was."""
    await ok(hub, "POST", "secrets/gone", {"data": {"k": "v"}})
    await hub.call("DELETE", "secrets/gone")
    info = await kept(hub, "GET", "secrets/gone")
    opened = await unwrap(hub, info["token"])
    assert opened.status_code == 404
    assert opened.json()["data"]["metadata"]["deletion_time"]


async def test_policies_see_the_time(hub: Node) -> None:
    """Conditions of native rules and Vault's limits hold for the time that is asked for."""
    rules = native("secrets/app/**")
    rules["statements"][0]["conditions"] = {"wrapping": True}
    natively = await hub.token("native", rules)
    limits = {"capabilities": ["read"], "min_wrapping_ttl": "30s", "max_wrapping_ttl": "90s"}
    vaults = await hub.token("vaults", {"path": {"secret/data/app/*": limits}})
    for token in (natively, vaults):
        assert (await hub.call("GET", "secrets/app/db", token)).status_code == 403
        await kept(hub, "GET", "secrets/app/db", token)
        assert (await hub.call("GET", "secrets/app/db", token)).status_code == 403
    for ttl in ("29", "91"):
        assert (await wrap(hub, "GET", "secrets/app/db", vaults, ttl)).status_code == 403
    never = native("secrets/app/**")
    never["statements"][0]["conditions"] = {"wrapping": False}
    clear = await hub.token("clear", never)
    for _ in range(2):
        assert (await hub.call("GET", "secrets/app/db", clear)).status_code == 200
        assert (await wrap(hub, "GET", "secrets/app/db", clear)).status_code == 403


@ALONE
async def test_the_ledger_tells_of_it(own_hub: Node) -> None:
    """Wrapping and opening have their intents and outcomes, and neither tokens nor values are in them."""
    url = own_hub.settings.database_url
    info = await kept(own_hub, "POST", "sys/wrapping/wrap", json={"secret": "canary-body"})
    await own_hub.call("POST", "sys/wrapping/unwrap", json={"token": info["token"]})
    wrapped = await entries(url, operation="sys.wrapping.wrap")
    assert [entry["kind"] for entry in wrapped] == ["intent", "outcome"]
    assert wrapped[0]["detail"]["wrap_ttl"] == 60
    digest = token_digest(own_hub.process.core.keyring(), info["token"])[:16]
    assert wrapped[1]["detail"]["answer"]["wrapped"]["token"] == digest
    opened = await entries(url, operation="sys.wrapping.unwrap")
    assert [(entry["kind"], entry["outcome"]) for entry in opened] == [
        ("intent", "begun"),
        ("outcome", "done"),
    ]
    assert opened[1]["detail"]["answer"]["token"] == digest
    assert opened[1]["detail"]["answer"]["creation_path"] == "sys/wrapping/wrap"
    await own_hub.call("POST", "sys/wrapping/unwrap", json={"token": info["token"]})
    assert (await entries(url, operation="sys.wrapping.unwrap"))[-1]["outcome"] == "failed"
    for table in ("audit_entries", "tokens", "accessors", "cubbyholes", "changes"):
        text = str([tuple(row) for row in await sql(url, f"SELECT * FROM {table}")])
        for secret in (info["token"], info["accessor"], "canary-body"):
            assert secret not in text
    await ledger_is_good(own_hub)


async def test_rights(hub: Node) -> None:
    """Each endpoint wants its own path granted; looking wants the wrapping token alone."""
    for path in ("wrap", "unwrap", "rewrap"):
        info = await kept(hub, "GET", "secrets/app/db")
        body = {"token": info["token"]}
        headers = {"X-Vault-Wrap-TTL": "60"} if path == "wrap" else {}
        where = f"sys/wrapping/{path}"
        exact = await hub.token("exact", native(where, capabilities=("update",)), no_default_policy=True)
        other = await hub.token("other", native("secrets/x"), no_default_policy=True)
        denied = await hub.token(
            "denied", native(where, capabilities=("update",), effect="deny"), no_default_policy=True
        )
        for token in ("", other, denied):
            refused = await hub.call("POST", where, token, json=body, headers=headers)
            assert refused.status_code == 403, path
        assert (await hub.call("POST", where, exact, json=body, headers=headers)).status_code == 200
    for token in ("", "hvs.none", hub.root):
        answer = await hub.call("POST", "sys/wrapping/lookup", token, json={})
        assert (answer.status_code, answer.json()["errors"]) == (400, INVALID)


async def test_other_tokens_are_no_wrapping_tokens(hub: Node) -> None:
    """An ordinary token is not opened, looked at or removed by the wrapping endpoints."""
    token = await hub.token("x", native("secrets/x"))
    for path in ("unwrap", "rewrap", "lookup"):
        answer = await hub.call("POST", f"sys/wrapping/{path}", json={"token": token})
        assert (answer.status_code, answer.json()["errors"]) == (400, INVALID)
    assert (await hub.call("GET", "auth/token/lookup-self", token)).status_code == 200


async def test_the_policy_of_wrapping_tokens_cannot_be_written(hub: Node) -> None:
    """Nobody widens what a wrapping token may do."""
    refused = await hub.call(
        "PUT", "sys/policies/acl/response-wrapping", json={"policy": native("secrets/**")}
    )
    assert refused.status_code == 400
    assert "built in" in refused.json()["errors"][0]


@ALONE
async def test_a_used_token_put_back(own_hub: Node) -> None:
    """Rows of an opened answer that a database writer puts back do not open again."""
    url = own_hub.settings.database_url
    info = await kept(own_hub, "GET", "secrets/app/db")
    digest = token_digest(own_hub.process.core.keyring(), info["token"])
    before = [(table, await saved(url, table, digest)) for table in (TOKENS, CUBBYHOLES)]
    assert (await unwrap(own_hub, info["token"])).status_code == 200
    for with_bucket in (False, True):
        for table, (row, bucket) in before:
            await put_back(url, table, row, bucket if with_bucket else None)
        answer = await own_hub.call("POST", "sys/wrapping/unwrap", json={"token": info["token"]})
        assert answer.status_code == 500
        assert "canary" not in answer.text
    await reported(own_hub, TOKENS, digest, "an older state was put back")


@ALONE
async def test_a_prolonged_wrapping_token(own_hub: Node) -> None:
    """A wrapping token whose end a database writer moves opens nothing."""
    info = await kept(own_hub, "GET", "secrets/app/db")
    digest = token_digest(own_hub.process.core.keyring(), info["token"])
    await sql(
        own_hub.settings.database_url,
        "UPDATE tokens SET expires_at = expires_at + interval '1 year' WHERE key = $1",
        digest,
    )
    assert (await unwrap(own_hub, info["token"])).status_code in {403, 500}
    answer = await own_hub.call("POST", "sys/wrapping/unwrap", json={"token": info["token"]})
    assert answer.status_code == 500
