"""Every operation on tokens: without a token, with an unrelated one, with the exact right, with it denied."""

from __future__ import annotations

from typing import Any

import pytest

from secrethub.auth.digests import token_digest
from secrethub.engines.token import TokenEngine
from secrethub.storage.authority import TOKEN_ROLES, TOKENS
from tests.gateway.behind import entries, sql
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.test_tamper import insert_copy, put_back, reported, saved

VERBS = {"write": "POST", "read": "GET", "list": "LIST", "delete": "DELETE"}
BODIES: dict[str, dict[str, Any]] = {
    "token.create": {"ttl": "1h"},
    "token.create-orphan": {"ttl": "1h"},
    "token.create-by-role": {"ttl": "1h"},
    "token.lookup": {"token": "victim"},
    "token.lookup-accessor": {"accessor": "victim"},
    "token.renew": {"token": "victim"},
    "token.renew-accessor": {"accessor": "victim"},
    "token.revoke": {"token": "victim"},
    "token.revoke-accessor": {"accessor": "victim"},
    "token.revoke-orphan": {"token": "victim"},
    "token.role.write": {"orphan": True},
}
OPERATIONS = TokenEngine().operations()


@SHARING
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_rights(shared_node: Node, operation: Any) -> None:
    """The right to the very path lets in, nothing else does, and every refusal is in the ledger."""
    node = shared_node
    await node.call("POST", "auth/token/roles/r", json={"allowed_policies": ["exact"]})
    made = await node.call("POST", "auth/token/create", json={"policies": ["a"], "ttl": "1h"})
    victim = made.json()["auth"]
    body = dict(BODIES.get(operation.name, {}))
    for name, field in (("token", "client_token"), ("accessor", "accessor")):
        if name in body:
            body[name] = victim[field]
    path = "auth/token/" + operation.pattern.replace("{role}", "r")
    method = VERBS[operation.method]
    # The role is there, so writing it is an update.
    rights = (operation.capability, *(("sudo",) if operation.sudo else ()))
    tokens = {
        "exact": await node.token("exact", native(path, capabilities=rights), no_default_policy=True),
        "other": await node.token("other", native("secrets/**", capabilities=("*",)), no_default_policy=True),
        "denied": await node.token("denied", native(path, capabilities=("*",), effect="deny")),
    }
    given = {"json": body} if method == "POST" else {}
    before = await entries(node.settings.database_url, operation=operation.name, outcome="denied")
    for caller in ("", tokens["other"], tokens["denied"]):
        answer = await node.call(method, path, caller, **given)
        assert answer.status_code == 403, (operation.name, answer.text)
    refused = await entries(node.settings.database_url, operation=operation.name, outcome="denied")
    assert len(refused) == len(before) + 3
    answer = await node.call(method, path, tokens["exact"], **given)
    assert answer.status_code in {200, 202, 204}, answer.text
    if operation.sudo:
        without = native(path, capabilities=(operation.capability,))
        plain = await node.token("plain", without, no_default_policy=True)
        assert (await node.call(method, path, plain, **given)).status_code == 403


async def test_a_role_widened_by_sql(node: Node) -> None:
    """A role that a database writer changed, or put back, makes no token."""
    url = node.settings.database_url
    await node.call("POST", "auth/token/roles/r", json={"allowed_policies": ["a"]})
    row, bucket = await saved(url, TOKEN_ROLES, "r")
    await node.call("POST", "auth/token/roles/r", json={"allowed_policies": ["b"]})
    maker = await node.token("maker", native("auth/token/create/r", capabilities=("update",)))
    for edit in (False, True):
        await put_back(url, TOKEN_ROLES, row, bucket if edit else None)
        made = await node.call("POST", "auth/token/create/r", maker, json={})
        assert made.status_code == 500
    await reported(node, TOKEN_ROLES, "r", "an older state was put back")


async def test_uses_given_back_by_sql(node: Node) -> None:
    """A token whose number of uses a database writer raises, or puts back, is worth nothing at all."""
    url = node.settings.database_url
    for with_bucket in (False, True):
        made = await node.call("POST", "auth/token/create", json={"policies": ["default"], "num_uses": 5})
        token = made.json()["auth"]["client_token"]
        digest = token_digest(node.process.core.keyring(), token)
        row, bucket = await saved(url, TOKENS, digest)
        assert (await node.call("GET", "auth/token/lookup-self", token)).status_code == 200
        await put_back(url, TOKENS, row, bucket if with_bucket else None)
        assert (await node.call("GET", "auth/token/lookup-self", token)).status_code == 403
    await reported(node, TOKENS, digest, "an older state was put back")


async def test_an_inserted_accessor(node: Node) -> None:
    """An accessor's row that a database writer made leads to no token."""
    from secrethub.auth.digests import accessor_digest
    from secrethub.storage.authority import ACCESSORS

    made = (await node.call("POST", "auth/token/create", json={"policies": ["a"]})).json()["auth"]
    ring = node.process.core.keyring()
    await insert_copy(
        node.settings.database_url,
        ACCESSORS,
        accessor_digest(ring, made["accessor"]),
        accessor_digest(ring, "x"),
    )
    answer = await node.call("POST", "auth/token/lookup-accessor", json={"accessor": "x"})
    assert answer.status_code == 500


async def test_an_edited_accessor_in_the_list(node: Node) -> None:
    """A list with an accessor that a database writer edited is not given out."""
    token = await node.token("x", native("secrets/x"))
    digest = token_digest(node.process.core.keyring(), token)
    edit = "UPDATE tokens SET body = jsonb_set(body, '{accessor}', '\"AAAA\"') WHERE key = $1"
    await sql(node.settings.database_url, edit, digest)
    assert (await node.call("LIST", "auth/token/accessors")).status_code == 500
    await reported(node, TOKENS, digest, "its accessor was edited")


@pytest.mark.parametrize("table", ["accessors", "cubbyholes"])
async def test_revoking_a_token_whose_other_rows_were_edited(node: Node, table: str) -> None:
    """A database writer cannot keep a token alive by breaking what belongs to it."""
    made = (await node.call("POST", "auth/token/create", json={"policies": ["default"]})).json()["auth"]
    token = made["client_token"]
    await node.call("POST", "cubbyhole/a", token, json={"k": "v"})
    await sql(node.settings.database_url, f"UPDATE {table} SET body = '{{}}'")
    revoked = await node.call("POST", "auth/token/revoke", json={"token": token})
    assert revoked.status_code == 204
    assert (await node.call("GET", "auth/token/lookup-self", token)).status_code == 403
    outcome = (await entries(node.settings.database_url, operation="token.revoke", kind="outcome"))[-1]
    assert outcome["detail"]["answer"]["left"][0].startswith(f"{table}/")
