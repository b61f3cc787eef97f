"""Other tokens: looked up, renewed and revoked by themselves or by their accessors; orphans; the list."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from secrethub.engines.token.known import DEEPEST
from tests.gateway.authority_core import MovingClock
from tests.gateway.behind import sql
from tests.gateway.conftest import ALONE, SHARING, Node, native

pytestmark = SHARING
MAKES = native("auth/token/**", capabilities=("create", "update", "read", "list"))


@pytest.fixture
def node(shared_node: Node) -> Node:
    """A node of all tests here, each of which has tokens of its own."""
    return shared_node


@pytest.fixture
def clock(own: Node) -> MovingClock:
    """The node's clock, which a test may move."""
    moving = MovingClock()
    own.process.core.clock = moving
    return moving


async def create(node: Node, token: str | None = None, path: str = "create", **body: Any) -> dict[str, Any]:
    answer = await node.call("POST", f"auth/token/{path}", token, json=body)
    assert answer.status_code == 200, answer.text
    auth: dict[str, Any] = answer.json()["auth"]
    return auth


async def status(node: Node, token: str) -> int:
    return (await node.call("GET", "auth/token/lookup-self", token)).status_code


async def write(node: Node, path: str, caller: str | None = None, /, **body: Any) -> Any:
    return await node.call("POST", f"auth/token/{path}", caller, json=body)


async def test_looking_up(node: Node) -> None:
    """A token is told of by itself, and by its accessor without being shown."""
    made = await create(node, policies=["a"], ttl="1h", meta={"k": "v"})
    token, accessor = made["client_token"], made["accessor"]
    by_token = (await write(node, "lookup", token=token)).json()["data"]
    by_accessor = (await write(node, "lookup-accessor", accessor=accessor)).json()["data"]
    own = (await node.call("GET", "auth/token/lookup-self", token)).json()["data"]
    assert by_token.pop("id") == own.pop("id") == token
    assert by_accessor.pop("id") == ""
    for seen in (by_token, by_accessor, own):
        assert seen.pop("ttl") > 3590
    assert by_token == by_accessor == own
    assert own["accessor"] == accessor
    # Without a token it is the caller's own.
    assert (await write(node, "lookup", token)).status_code == 403
    assert (await write(node, "lookup")).json()["data"]["id"] == node.root


async def test_what_is_unknown(node: Node) -> None:
    """Unknown tokens and accessors are told of in Vault's words; revoking an unknown token is no error."""
    gone = await create(node, policies=["a"])
    assert (await write(node, "revoke", token=gone["client_token"])).status_code == 204
    for token in ("hvs.none", gone["client_token"], "x" * 9000):
        assert (await write(node, "lookup", token=token)).status_code == 403
        assert (await write(node, "renew", token=token)).json()["errors"] == ["token not found"]
        assert (await write(node, "revoke", token=token)).status_code == 204
        refused = await write(node, "revoke-orphan", token=token)
        assert refused.json()["errors"] == ["token to revoke not found"]
    for accessor in ("none", gone["accessor"], "", "x" * 9000):
        for path in ("lookup-accessor", "renew-accessor", "revoke-accessor"):
            refused = await write(node, path, accessor=accessor)
            assert refused.status_code == 400, path
            assert refused.json()["errors"] == ["invalid accessor"]


@ALONE
async def test_renewing(own: Node, clock: MovingClock) -> None:
    """A token is renewed by itself and by its accessor, and says when that was; the latter shows no token."""
    made = await create(own, policies=["default"], ttl="1h")
    token, accessor = made["client_token"], made["accessor"]
    clock.ahead += timedelta(minutes=30)
    renewed = (await write(own, "renew", token=token, increment="2h")).json()["auth"]
    assert renewed["client_token"] == token
    assert renewed["lease_duration"] == 7200
    renewed = (await write(own, "renew-accessor", accessor=accessor, increment=10800)).json()["auth"]
    assert renewed["client_token"] == ""
    assert renewed["accessor"] == accessor
    assert renewed["lease_duration"] == 10800
    seen = (await own.call("GET", "auth/token/lookup-self", token)).json()["data"]
    assert seen["last_renewal_time"] >= seen["creation_time"] + 1800
    assert seen["last_renewal"].endswith("Z")
    clock.ahead += timedelta(hours=3, seconds=1)
    assert (await write(own, "renew-accessor", accessor=accessor)).status_code == 403
    assert (await write(own, "renew", token=token)).status_code == 403


async def test_revoking_by_token_and_accessor(node: Node) -> None:
    """Whoever may revoke ends a token and its tree by either name."""
    await node.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    for path, field in (("revoke", "client_token"), ("revoke-accessor", "accessor")):
        parent = await create(node, policies=["make"])
        child = await create(node, parent["client_token"])
        name = "token" if field == "client_token" else field
        assert (await write(node, path, **{name: parent[field]})).status_code == 204
        assert await status(node, parent["client_token"]) == 403
        assert await status(node, child["client_token"]) == 403


async def test_revoking_leaves_orphans(node: Node) -> None:
    """Only the token itself ends; its children, however many, live on without a parent, and their trees."""
    await node.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    parent = (await create(node, policies=["make"]))["client_token"]
    children = [(await create(node, parent))["client_token"] for _ in range(120)]
    grandchild = (await create(node, children[0]))["client_token"]
    batch = (await create(node, parent, type="batch"))["client_token"]
    assert (await write(node, "revoke-orphan", token=parent)).status_code == 204
    assert await status(node, parent) == 403
    assert await status(node, batch) == 403
    assert await status(node, grandchild) == 200
    for child in (children[0], children[-1]):
        seen = (await node.call("GET", "auth/token/lookup-self", child)).json()["data"]
        assert seen["orphan"] is True
    seen = (await node.call("GET", "auth/token/lookup-self", grandchild)).json()["data"]
    assert seen["orphan"] is False
    assert (await write(node, "revoke", token=children[0])).status_code == 204
    assert await status(node, grandchild) == 403


@ALONE
async def test_revoking_an_orphanage_needs_sudo(own: Node) -> None:
    """The right to write is not enough to leave orphans behind, or to list all accessors."""
    plain = await own.token("plain", native("auth/token/**", capabilities=("update", "list")))
    sudo = await own.token("sudo", native("auth/token/**", capabilities=("update", "list", "sudo")))
    made = await create(own, policies=["a"])
    assert (await write(own, "revoke-orphan", plain, token=made["client_token"])).status_code == 403
    assert (await own.call("LIST", "auth/token/accessors", plain)).status_code == 403
    keys = (await own.call("LIST", "auth/token/accessors", sudo)).json()["data"]["keys"]
    assert made["accessor"] in keys
    assert len(keys) == 4
    assert (await write(own, "revoke-orphan", sudo, token=made["client_token"])).status_code == 204
    keys = (await own.call("GET", "auth/token/accessors?list=true", sudo)).json()["data"]["keys"]
    assert made["accessor"] not in keys


@ALONE
async def test_accessors_in_pages(own: Node) -> None:
    """Pages tell each accessor once, and go on behind a token that was revoked meanwhile."""
    made = [(await create(own, policies=["a"]))["accessor"] for _ in range(6)]
    whole = (await own.call("LIST", "auth/token/accessors")).json()["data"]["keys"]
    assert len(whole) == 7
    assert set(made) < set(whole)
    told: list[str] = []
    while True:
        query = {"list": "true", "limit": "2", "after": told[-1] if told else ""}
        answer = await own.call("GET", "auth/token/accessors", params=query)
        if answer.status_code == 404:
            break
        keys = answer.json()["data"]["keys"]
        assert 1 <= len(keys) <= 2
        told += keys
        gone = next(name for name in reversed(told) if name in made)
        await write(own, "revoke-accessor", accessor=gone)
    assert told == whole
    for query in ({"limit": "-1"}, {"limit": "x"}):
        refused = await own.call("GET", "auth/token/accessors", params={"list": "true", **query})
        assert refused.status_code == 400


@ALONE
async def test_an_accessor_of_another_token_is_not_listed(own: Node) -> None:
    """A database writer cannot put one token's accessor in the place of another's."""
    await create(own, policies=["a"])
    await sql(
        own.settings.database_url,
        """UPDATE accessors SET body = jsonb_set(body, '{token}', (
               SELECT body->'token' FROM accessors WHERE key = (SELECT max(key) FROM accessors)))
           WHERE key = (SELECT min(key) FROM accessors)""",
    )
    assert (await own.call("LIST", "auth/token/accessors")).status_code == 500


async def test_sudo_makes_what_others_may_not(node: Node) -> None:
    """With sudo on the path a token makes orphans, periodic ones, and others' policies, but never root."""
    wide = native("auth/token/create", capabilities=("update", "sudo"))
    sudo = await node.token("sudo", wide)
    plain = await node.token("plain", native("auth/token/create", capabilities=("update",)))
    for body in ({"no_parent": True}, {"period": "1h"}):
        assert (await write(node, "create", plain, **body)).status_code == 403
        assert (await create(node, sudo, **body))["orphan"] is ("no_parent" in body)
    assert (await create(node, sudo, policies=["other"]))["policies"] == ["default", "other"]
    assert (await create(node, sudo, policies=["other"], no_default_policy=True))["policies"] == ["other"]
    for policies in (["root"], ["response-wrapping"]):
        assert (await write(node, "create", sudo, policies=policies)).status_code == 400
    assert (await write(node, "create", policies=["response-wrapping"])).status_code == 400


async def test_orphans_by_their_own_path(node: Node) -> None:
    """The right to create-orphan is enough for a token that outlives its maker."""
    maker = await node.token("maker", native("auth/token/create-orphan", capabilities=("update",)))
    made = await create(node, maker, "create-orphan", ttl="1h")
    assert made["orphan"] is True
    assert made["policies"] == ["default", "maker"]
    assert (await write(node, "create", maker)).status_code == 403
    assert (await node.call("POST", "auth/token/revoke-self", maker)).status_code == 204
    assert await status(node, made["client_token"]) == 200


async def test_generations_are_bounded_when_they_are_made(node: Node) -> None:
    """A token that could never be used is refused, and not given out; an orphan begins anew."""
    token = node.root
    for _ in range(DEEPEST - 1):
        token = (await create(node, token, ttl="1h"))["client_token"]
    assert await status(node, token) == 200
    assert (await write(node, "create", token, ttl="1h")).status_code == 400
    orphan = await create(node, token, "create-orphan", ttl="1h")
    assert await status(node, orphan["client_token"]) == 200


@ALONE
async def test_tidying(own: Node) -> None:
    """Whoever may tidies at once; what is left over of a removed token goes, and root keeps its accessor."""
    url = own.settings.database_url
    parent = await create(own, policies=["default"])
    made = await create(own, policies=["default"])
    await own.call("POST", "cubbyhole/a", made["client_token"], json={"k": "v"})
    answer = await write(own, "tidy")
    assert answer.status_code == 202
    assert len(answer.json()["warnings"]) == 1
    before = [(await sql(url, f"SELECT count(*) AS n FROM {t}"))[0]["n"] for t in ("tokens", "accessors")]
    assert before == [3, 3]
    # What a process left that was killed before it had removed the descendants of a revoked token.
    core = own.process.core
    keys = [row["key"] for row in await sql(url, "SELECT key FROM tokens WHERE owner IS NOT NULL")]
    assert len(keys) == 2
    from secrethub.auth.digests import token_digest
    from secrethub.engines.engine import Fence
    from secrethub.storage.authority import TOKENS

    fence = Fence(generation=core.caches.generation, seal_epoch=core.caches.seal_epoch, written=[])
    digest = token_digest(core.keyring(), made["client_token"])
    async with core.authority.issue(fence) as change:
        assert await change.delete(TOKENS, digest)
    assert len(await sql(url, "SELECT 1 FROM cubbyholes")) == 1
    assert (await write(own, "tidy")).status_code == 202
    assert await sql(url, "SELECT 1 FROM cubbyholes") == []
    assert len(await sql(url, "SELECT 1 FROM accessors")) == 2
    assert await status(own, parent["client_token"]) == 200
    keys = (await own.call("LIST", "auth/token/accessors")).json()["data"]["keys"]
    root = (await write(own, "lookup")).json()["data"]["accessor"]
    assert (await write(own, "lookup-accessor", accessor=root)).status_code == 200
    assert sorted(keys) == sorted([root, parent["accessor"]])


async def test_renewing_while_it_is_revoked(node: Node) -> None:
    """No renewal brings a token back, however the two requests meet."""
    for _ in range(5):
        made = await create(node, policies=["default"], ttl="1h")
        renewals = [write(node, "renew-accessor", accessor=made["accessor"]) for _ in range(6)]
        *answers, revoked = await asyncio.gather(
            *renewals, write(node, "revoke-accessor", accessor=made["accessor"])
        )
        assert revoked.status_code == 204
        assert {answer.status_code for answer in answers} <= {200, 400, 403}
        assert await status(node, made["client_token"]) == 403
