"""Cubbyholes: what a token keeps is its own, and ends with it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from secrethub.auth.digests import token_digest
from secrethub.storage.authority import CUBBYHOLES
from tests.gateway.authority_core import MovingClock
from tests.gateway.behind import holes, sql
from tests.gateway.conftest import ALONE, SHARING, Node, native
from tests.gateway.test_tamper import put_back, reported, saved

pytestmark = SHARING


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has tokens of its own."""
    return shared_node


async def default_token(node: Node, **body: Any) -> str:
    made = await node.call("POST", "auth/token/create", json={"policies": ["default"], **body})
    assert made.status_code == 200, made.text
    return str(made.json()["auth"]["client_token"])


async def test_write_read_list_delete(node: Node) -> None:
    """Objects are kept by path, replaced as a whole, listed by folder and deleted."""
    before = await holes(node)
    token = await default_token(node)
    assert (await node.call("GET", "cubbyhole/a", token)).status_code == 404
    assert (await node.call("LIST", "cubbyhole", token)).status_code == 404
    assert (await node.call("POST", "cubbyhole/a", token, json={})).status_code == 400
    for path in ("a", "b/c", "b/d/e", "ü x"):
        written = await node.call("POST", f"cubbyhole/{path}", token, json={"k": path, "n": None})
        assert written.status_code == 204, written.text
    assert (await node.call("GET", "cubbyhole/b/c", token)).json()["data"] == {"k": "b/c", "n": None}
    assert (await node.call("LIST", "cubbyhole", token)).json()["data"]["keys"] == ["a", "b/", "ü x"]
    assert (await node.call("LIST", "cubbyhole/b", token)).json()["data"]["keys"] == ["c", "d/"]
    assert (await node.call("GET", "cubbyhole/?list=true", token)).json()["data"]["keys"][0] == "a"
    assert (await node.call("PUT", "cubbyhole/a", token, json={"other": 1})).status_code == 204
    assert (await node.call("GET", "cubbyhole/a", token)).json()["data"] == {"other": 1}
    assert (await node.call("PATCH", "cubbyhole/a", token, json={"x": 1})).status_code in {403, 405}
    for path in ("a", "b/c", "b/d/e", "ü x", "ü x"):
        assert (await node.call("DELETE", f"cubbyhole/{path}", token)).status_code == 204
    assert (await node.call("LIST", "cubbyhole", token)).status_code == 404
    assert await holes(node) <= before


@ALONE
async def test_nobody_else_sees_it(own: Node) -> None:
    """Neither root, nor the parent, nor a child sees what a token keeps; in the database it is sealed."""
    both = native("auth/token/create", "cubbyhole/**", capabilities=("create", "update", "read", "list"))
    token = await own.token("both", both)
    made = await own.call("POST", "auth/token/create", token, json={})
    child = made.json()["auth"]["client_token"]
    await own.call("POST", "cubbyhole/mine", token, json={"k": "canary-cubby"})
    for other in (own.root, child):
        assert (await own.call("GET", "cubbyhole/mine", other)).status_code == 404
        assert (await own.call("LIST", "cubbyhole", other)).status_code == 404
    for table in ("cubbyholes", "changes", "audit_entries"):
        text = str([tuple(row) for row in await sql(own.settings.database_url, f"SELECT * FROM {table}")])
        assert "canary-cubby" not in text
    rows = str([tuple(row) for row in await sql(own.settings.database_url, "SELECT * FROM cubbyholes")])
    assert "mine" not in rows


async def test_who_may(node: Node) -> None:
    """Each capability lets its own operation through, and a denial none; without a token nobody gets in."""
    methods = {
        "create": ("POST", "cubbyhole/new", 204),
        "update": ("POST", "cubbyhole/there", 204),
        "read": ("GET", "cubbyhole/there", 200),
        "list": ("LIST", "cubbyhole", 200),
        "delete": ("DELETE", "cubbyhole/there", 204),
    }
    everything = native("cubbyhole/**", "cubbyhole", capabilities=tuple(methods))
    for capability, (method, path, code) in methods.items():
        token = await node.token("hole", everything, no_default_policy=True)
        await node.call("POST", "cubbyhole/there", token, json={"k": "v"})
        rights = native("cubbyhole/**", "cubbyhole", capabilities=(capability,))
        await node.call("PUT", "sys/policies/acl/hole", json={"policy": rights})
        for other, (verb, where, _) in methods.items():
            if other != capability:
                answer = await node.call(verb, where, token, json={"k": 1} if verb == "POST" else None)
                assert answer.status_code == 403, (capability, other)
        answer = await node.call(method, path, token, json={"k": 1} if method == "POST" else None)
        assert answer.status_code == code, capability
        assert (await node.call(method, path, "")).status_code == 403
        statements = (
            rights["statements"]
            + native("cubbyhole/**", "cubbyhole", capabilities=("*",), effect="deny")["statements"]
        )
        await node.call(
            "PUT", "sys/policies/acl/hole", json={"policy": {"version": "1", "statements": statements}}
        )
        answer = await node.call(method, path, token, json={"k": 1} if method == "POST" else None)
        assert answer.status_code == 403, capability


@ALONE
async def test_it_ends_with_the_token(own: Node) -> None:
    """What a token keeps goes when it is revoked, with its children's, and when it has expired."""
    clock = MovingClock()
    own.process.core.clock = clock
    clock.ahead = timedelta(minutes=-30)
    short = await default_token(own, ttl="60s")
    await own.call("POST", "cubbyhole/a", short, json={"k": 1})
    clock.ahead = timedelta()
    parent = await own.token(
        "makes", native("auth/token/create", "cubbyhole/a", capabilities=("create", "update"))
    )
    child = (await own.call("POST", "auth/token/create", parent, json={})).json()["auth"]["client_token"]
    for token in (parent, child):
        assert (await own.call("POST", "cubbyhole/a", token, json={"k": 1})).status_code == 204
    count = "SELECT count(*) AS n FROM cubbyholes"
    assert (await sql(own.settings.database_url, count))[0]["n"] == 3
    assert (await own.call("POST", "auth/token/revoke", json={"token": parent})).status_code == 204
    assert (await sql(own.settings.database_url, count))[0]["n"] == 1
    assert (await own.call("POST", "auth/token/tidy")).status_code == 202
    assert (await sql(own.settings.database_url, count))[0]["n"] == 0


async def test_writes_while_the_token_is_revoked(node: Node) -> None:
    """Nothing is kept for a token that is gone, however the requests meet."""
    before = await holes(node)
    for _ in range(5):
        token = await default_token(node)
        writes = [node.call("POST", f"cubbyhole/{n}", token, json={"k": n}) for n in range(6)]
        *answers, revoked = await asyncio.gather(*writes, node.call("POST", "auth/token/revoke-self", token))
        assert revoked.status_code == 204
        assert {answer.status_code for answer in answers} <= {204, 403}
        assert await holes(node) <= before


async def test_writes_at_the_same_time(node: Node) -> None:
    """No write takes another one back."""
    token = await default_token(node)
    answers = await asyncio.gather(
        *(node.call("POST", f"cubbyhole/p{n}", token, json={"k": n}) for n in range(20))
    )
    assert {answer.status_code for answer in answers} == {204}
    assert len((await node.call("LIST", "cubbyhole", token)).json()["data"]["keys"]) == 20


async def test_what_is_too_large(node: Node) -> None:
    """A token keeps a mebibyte, and what was there stays when more is refused."""
    token = await default_token(node)
    assert (await node.call("POST", "cubbyhole/a", token, json={"k": "x" * 600_000})).status_code == 204
    refused = await node.call("POST", "cubbyhole/b", token, json={"k": "x" * 600_000})
    assert refused.status_code == 400
    assert (await node.call("LIST", "cubbyhole", token)).json()["data"]["keys"] == ["a"]


EDITED = "UPDATE cubbyholes SET body = jsonb_set(body, '{entries}', '\"AAAA\"') WHERE key = $1"
REMOVED = "DELETE FROM cubbyholes WHERE key = $1"


@pytest.mark.parametrize(
    ("edit", "why"),
    [(EDITED, "the row was edited"), (REMOVED, "a row was inserted, removed or put back")],
)
@ALONE
async def test_tampered_rows(own: Node, edit: str, why: str) -> None:
    """A row edited or removed by SQL gives nothing, and the ledger names it."""
    token = await default_token(own)
    await own.call("POST", "cubbyhole/a", token, json={"k": "v"})
    digest = token_digest(own.process.core.keyring(), token)
    await sql(own.settings.database_url, edit, digest)
    assert (await own.call("GET", "cubbyhole/a", token)).status_code == 500
    await reported(own, CUBBYHOLES, digest, why)


@ALONE
async def test_an_older_state_put_back(own: Node) -> None:
    """What a token kept before does not come back by SQL, with its bucket neither."""
    url = own.settings.database_url
    token = await default_token(own)
    await own.call("POST", "cubbyhole/a", token, json={"k": "old"})
    digest = token_digest(own.process.core.keyring(), token)
    row, bucket = await saved(url, CUBBYHOLES, digest)
    await own.call("POST", "cubbyhole/a", token, json={"k": "new"})
    await put_back(url, CUBBYHOLES, row)
    assert (await own.call("GET", "cubbyhole/a", token)).status_code == 500
    await put_back(url, CUBBYHOLES, row, bucket)
    assert (await own.call("GET", "cubbyhole/a", token)).status_code == 500
    await reported(own, CUBBYHOLES, digest, "an older state was put back")


@ALONE
async def test_anothers_row_copied(own: Node) -> None:
    """A row copied to another token opens nothing there."""
    url = own.settings.database_url
    token, thief = await default_token(own), await default_token(own)
    await own.call("POST", "cubbyhole/a", token, json={"k": "canary"})
    ring = own.process.core.keyring()
    mine, theirs = token_digest(ring, token), token_digest(ring, thief)
    await sql(
        url,
        """INSERT INTO cubbyholes SELECT $2, revision, body, owner, expires_at, $3, mac
           FROM cubbyholes WHERE key = $1""",
        mine,
        theirs,
        CUBBYHOLES.bucket(theirs),
    )
    answer = await own.call("GET", "cubbyhole/a", thief)
    assert answer.status_code == 500
    assert "canary" not in answer.text
