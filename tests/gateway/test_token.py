"""Tokens: a child has never more than its parent, ends with it, and lives no longer than allowed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.gateway.authority_core import MovingClock
from tests.gateway.conftest import ALONE, SHARING, Node, native

pytestmark = SHARING
MAX_TTL = 768 * 3600
MAKES = native("auth/token/**", capabilities=("create", "update", "read"))


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


async def create(node: Node, token: str | None = None, **body: Any) -> dict[str, Any]:
    answer = await node.call("POST", "auth/token/create", token, json=body)
    assert answer.status_code == 200, answer.text
    auth: dict[str, Any] = answer.json()["auth"]
    return auth


async def lookup(node: Node, token: str) -> dict[str, Any]:
    answer = await node.call("GET", "auth/token/lookup-self", token)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def status(node: Node, token: str) -> int:
    return (await node.call("GET", "auth/token/lookup-self", token)).status_code


async def test_child_of_root(node: Node) -> None:
    """What is asked for is what the token has, and a lookup tells all of it."""
    auth = await create(
        node,
        policies=["B", "a", "a"],
        ttl="1h",
        display_name="ci job:\n7",
        meta={"team": "x", "n": 1, "y": True},
    )
    assert auth["client_token"].startswith("hvs.")
    assert auth["policies"] == auth["token_policies"] == ["a", "b", "default"]
    assert auth["lease_duration"] == 3600
    assert auth["renewable"] is True
    assert auth["orphan"] is False
    assert auth["token_type"] == "service"
    seen = await lookup(node, auth["client_token"])
    assert seen["id"] == auth["client_token"]
    assert seen["accessor"] == auth["accessor"]
    assert seen["display_name"] == "token-ci-job--7"
    assert seen["meta"] == {"team": "x", "n": "1", "y": "true"}
    assert seen["creation_ttl"] == 3600
    assert 3590 < seen["ttl"] <= 3600
    assert seen["expire_time"].endswith("Z")
    assert seen["path"] == "auth/token/create"


async def test_policies_are_a_subset_of_the_parents(node: Node) -> None:
    """Neither named, nor by default, nor as root does a child get what its parent lacks."""
    await node.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    bare = await create(node, policies=["make", "other"], no_default_policy=True)
    assert bare["policies"] == ["make", "other"]
    parent = bare["client_token"]
    assert (await create(node, parent))["policies"] == ["make", "other"]
    assert (await create(node, parent, policies=[]))["policies"] == ["make", "other"]
    assert (await create(node, parent, policies=["other"]))["policies"] == ["other"]
    for wanted in (["default"], ["root"], ["make", "root"], ["ROOT"], ["make", "more"]):
        refused = await node.call("POST", "auth/token/create", parent, json={"policies": wanted})
        assert refused.status_code == 400
        assert refused.json()["errors"][0].startswith("child policies must be subset of parent")
    with_default = await create(node, policies=["make"])
    assert with_default["policies"] == ["default", "make"]
    child = await create(node, with_default["client_token"], policies=["make"])
    assert child["policies"] == ["default", "make"]
    child = await create(node, with_default["client_token"], policies=["make"], no_default_policy=True)
    assert child["policies"] == ["make"]


@ALONE
async def test_root_children(own: Node, clock: MovingClock) -> None:
    """Root makes root, alone and for ever if it says nothing; a root that ends makes none that does not."""
    child = await create(own)
    assert child["policies"] == ["root"]
    assert child["lease_duration"] == 0
    assert child["renewable"] is False
    assert (await create(own, policies=["root", "a"]))["policies"] == ["root"]
    ends = (await create(own, ttl="1h"))["client_token"]
    refused = await own.call("POST", "auth/token/create", ends, json={})
    assert refused.status_code == 400
    assert "non-expiring root" in refused.json()["errors"][0]
    assert (await create(own, ends, ttl="30m"))["lease_duration"] == 1800
    assert (await create(own, ends, explicit_max_ttl="10m"))["lease_duration"] == 600
    clock.ahead += timedelta(hours=1)
    assert await status(own, ends) == 403


async def test_orphans_need_root(node: Node) -> None:
    """Only root makes tokens that outlive it."""
    await node.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    plain = (await create(node, policies=["make"]))["client_token"]
    refused = await node.call("POST", "auth/token/create", plain, json={"no_parent": True})
    assert refused.status_code == 403
    root = (await create(node, ttl="1h"))["client_token"]
    orphan = await create(node, root, policies=["a"], no_parent=True)
    assert orphan["orphan"] is True
    assert (await node.call("POST", "auth/token/revoke-self", root)).status_code == 204
    assert await status(node, orphan["client_token"]) == 200


@ALONE
async def test_revoking_ends_the_whole_tree(own: Node) -> None:
    """Children and grandchildren end with their parent, siblings and parents do not."""
    await own.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    parent = (await create(own, policies=["make"]))["client_token"]
    child = (await create(own, parent))["client_token"]
    sibling = (await create(own, parent))["client_token"]
    grandchild = (await create(own, child))["client_token"]
    assert (await own.call("POST", "auth/token/revoke-self", child)).status_code == 204
    assert [await status(own, token) for token in (parent, child, sibling, grandchild)] == [
        200,
        403,
        200,
        403,
    ]
    assert (await own.call("POST", "auth/token/revoke-self", child)).status_code == 403
    connection = await asyncpg.connect(own.settings.database_url)
    try:
        tokens = await connection.fetchval("SELECT count(*) FROM tokens")
        assert tokens == await connection.fetchval("SELECT count(*) FROM accessors")
    finally:
        await connection.close()


@ALONE
async def test_parents_expiry_ends_its_children(own: Node, clock: MovingClock) -> None:
    """A child that was given longer still ends with its parent."""
    await own.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    parent = (await create(own, policies=["make"], ttl="10m"))["client_token"]
    child = (await create(own, parent, ttl="5h"))["client_token"]
    clock.ahead += timedelta(minutes=9, seconds=59)
    assert await status(own, child) == 200
    clock.ahead += timedelta(seconds=2)
    assert await status(own, parent) == 403
    assert await status(own, child) == 403
    assert (await own.call("POST", "auth/token/renew-self", child)).status_code == 403


async def test_creating_while_the_parent_is_revoked(node: Node) -> None:
    """No child survives its parent, however the two requests meet."""
    await node.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    parent = (await create(node, policies=["make"]))["client_token"]
    made = [node.call("POST", "auth/token/create", parent, json={}) for _ in range(12)]
    *answers, revoked = await asyncio.gather(*made, node.call("POST", "auth/token/revoke-self", parent))
    assert revoked.status_code == 204
    assert {answer.status_code for answer in answers} <= {200, 403}
    for answer in answers:
        if answer.status_code == 200:
            assert await status(node, answer.json()["auth"]["client_token"]) == 403


async def test_a_misspelt_policy_is_told(node: Node) -> None:
    """A policy that is asked for and does not exist is given with a warning; what is inherited has none."""
    await node.call("PUT", "sys/policies/acl/make", json={"policy": MAKES})
    made = await node.call("POST", "auth/token/create", json={"policies": ["make", "mkae"]})
    assert made.json()["warnings"] == ['policy "mkae" does not exist']
    assert made.json()["auth"]["policies"] == ["default", "make", "mkae"]
    child = await node.call("POST", "auth/token/create", made.json()["auth"]["client_token"], json={})
    assert child.json()["warnings"] is None
    rooted = await node.call("POST", "auth/token/create", json={"policies": ["root", "Make"]})
    assert rooted.json()["warnings"] is None


async def test_lifetimes_have_a_maximum(node: Node) -> None:
    """Nothing lives longer than the system's or its own maximum, and who asked for more is told."""
    long = await node.call("POST", "auth/token/create", json={"policies": ["a"], "ttl": "8760h"})
    assert long.json()["auth"]["lease_duration"] == MAX_TTL
    assert "exceeded the effective max_ttl" in long.json()["warnings"][0]
    assert (await create(node, policies=["a"]))["lease_duration"] == MAX_TTL
    own = await node.call(
        "POST", "auth/token/create", json={"policies": ["a"], "ttl": "2h", "explicit_max_ttl": "1h"}
    )
    assert own.json()["auth"]["lease_duration"] == 3600
    assert (await lookup(node, own.json()["auth"]["client_token"]))["explicit_max_ttl"] == 3600


@ALONE
async def test_renewal_stays_below_the_maximum(own: Node, clock: MovingClock) -> None:
    """Renewals add up to the maximum counted from creation, even if the token's own is larger."""
    token = (await create(own, policies=["default"], ttl="1h", explicit_max_ttl="90m"))["client_token"]
    clock.ahead += timedelta(minutes=50)
    renewed = await own.call("POST", "auth/token/renew-self", token, json={"increment": "1h"})
    assert 2395 < renewed.json()["auth"]["lease_duration"] <= 2400
    assert "exceeded the effective max_ttl" in renewed.json()["warnings"][0]
    clock.ahead += timedelta(minutes=41)
    assert await status(own, token) == 403
    longer = (await create(own, policies=["default"], ttl="700h", explicit_max_ttl="87600h"))["client_token"]
    clock.ahead += timedelta(hours=600)
    renewed = await own.call("POST", "auth/token/renew-self", longer, json={"increment": "9000h"})
    assert renewed.json()["auth"]["lease_duration"] <= 168 * 3600
    clock.ahead += timedelta(hours=169)
    assert await status(own, longer) == 403


@ALONE
async def test_renewal(own: Node, clock: MovingClock) -> None:
    """A token renews by its own ttl or what is asked, shorter too, and tells its new end."""
    token = (await create(own, policies=["default"], ttl="1h"))["client_token"]
    clock.ahead += timedelta(minutes=30)
    renewed = (await own.call("POST", "auth/token/renew-self", token)).json()["auth"]
    assert 3595 < renewed["lease_duration"] <= 3600
    assert renewed["client_token"] == token
    shorter = await own.call("PUT", "auth/token/renew-self", token, json={"increment": 60})
    assert shorter.json()["auth"]["lease_duration"] <= 60
    assert (await lookup(own, token))["ttl"] <= 60
    clock.ahead += timedelta(seconds=61)
    assert (await own.call("POST", "auth/token/renew-self", token)).status_code == 403


async def test_what_cannot_be_renewed(node: Node) -> None:
    """Root and tokens made so are not renewable; negative and nonsense increments are refused."""
    fixed = (await create(node, policies=["default"], ttl="1h", renewable=False))["client_token"]
    for token in (fixed, node.root):
        refused = await node.call("POST", "auth/token/renew-self", token)
        assert refused.status_code == 400
        assert refused.json()["errors"] == ["lease is not renewable"]
    token = (await create(node, policies=["default"], ttl="1h"))["client_token"]
    for wrong in (-1, "-1h", "soon", True, [1], "1e3"):
        refused = await node.call("POST", "auth/token/renew-self", token, json={"increment": wrong})
        assert refused.status_code == 400, wrong


REFUSED: list[dict[str, Any]] = [
    {"ttl": "-1h"},
    {"ttl": True},
    {"ttl": "999999999999h"},
    {"explicit_max_ttl": "x"},
    {"policies": ["a/b"]},
    {"policies": ["ä"]},
    {"policies": ["a\u0000"]},
    {"policies": [f"p{number}" for number in range(65)]},
    {"type": "other"},
    {"type": "batch", "num_uses": 3},
    {"type": "batch", "period": "1h"},
    {"type": "batch", "explicit_max_ttl": "1h"},
    {"type": "batch"},
    {"num_uses": -1},
    {"num_uses": 1 << 31},
    {"period": "-1h"},
    {"id": "chosen"},
    {"entity_alias": "x"},
    {"meta": {"a": []}},
    {"meta": {"a": None}},
    {"meta": {"a": "b\u0000"}},
    {"meta": {"a\n": "b"}},
    {"meta": {"a": "b" * 513}},
    {"meta": {"a" * 129: "b"}},
    {"meta": {f"k{number}": "" for number in range(65)}},
    {"meta": "a=b"},
]


async def test_what_cannot_be_made_is_refused(node: Node) -> None:
    """What would narrow a token and is not enforced, and what cannot be stored, is refused by name."""
    for body in REFUSED:
        refused = await node.call("POST", "auth/token/create", json=body)
        assert refused.status_code == 400, (body, refused.text)
        assert refused.json()["errors"][0] not in {"", "invalid_request"}


async def test_neutral_values_are_taken(node: Node) -> None:
    """Clients that spell out what is off mean nothing by it."""
    auth = await create(
        node, policies=["a"], num_uses=0, period="0s", id="", entity_alias="", type="default", ttl="", meta={}
    )
    assert auth["num_uses"] == 0


async def test_odd_display_names(node: Node) -> None:
    """A display name cannot forge an actor or a line of the ledger, nor stop it."""
    for name in ("a\u0000b", "x:y:root", "a\nb\r\n", "\u202e", "n" * 5000, "ü"):
        auth = await create(node, policies=["default"], display_name=name)
        shown = (await lookup(node, auth["client_token"]))["display_name"]
        assert shown.startswith("token-")
        assert shown.replace("-", "").isalnum()
        assert len(shown) <= 106
    assert (await node.call("POST", "sys/audit/verify")).json()["data"]["ok"] is True


async def test_unknown_tokens_get_one_answer(node: Node) -> None:
    """Absent, malformed, unknown and oversized tokens are told apart by nobody."""
    revoked = (await create(node, policies=["default"]))["client_token"]
    await node.call("POST", "auth/token/revoke-self", revoked)
    answers = set()
    for token in (
        "",
        "x",
        "hvs.",
        "hvs." + "a" * 28,
        node.root + "x",
        node.root[:-1],
        "a" * 5000,
        "ü",
        revoked,
    ):
        answer = await node.client.get(
            "/v1/auth/token/lookup-self", headers={"X-Vault-Token": token.encode()}
        )
        answers.add((answer.status_code, answer.json()["code"], tuple(answer.json()["errors"])))
    assert answers == {(403, "permission_denied", ("permission denied",))}


async def test_only_digests_are_stored(node: Node) -> None:
    """Neither tokens nor accessors stand in the database in clear."""
    auth = await create(node, policies=["default"], meta={"known": "text"})
    connection = await asyncpg.connect(node.settings.database_url)
    try:
        for table in ("tokens", "accessors", "audit_entries", "changes"):
            text = await connection.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table} t")
            for secret in (auth["client_token"], auth["accessor"], node.root):
                assert secret not in text
    finally:
        await connection.close()


async def test_default_policy_is_what_it_says(node: Node) -> None:
    """A token with ``default`` alone looks after itself, enrols if a login made it, and does no more."""
    token = (await create(node, policies=["default"], ttl="1h"))["client_token"]
    assert await status(node, token) == 200
    assert (await node.call("POST", "auth/token/renew-self", token)).status_code == 200
    shown = (await node.call("GET", "sys/internal/ui/mounts", token)).json()["data"]
    assert "secret/" not in shown["secret"]
    assert (await node.call("GET", "sys/internal/ui/mounts/secret/a", token)).status_code == 403
    assert (await node.call("GET", "sys/internal/ui/mounts/nothing/a", token)).status_code == 403
    # Granted to everybody, given to those that an AppRole login let in.
    assert (await node.call("POST", "agents/enroll/begin", token, json={})).status_code == 403
    for method, path in (
        ("POST", "auth/token/create"),
        ("GET", "secrets/a"),
        ("LIST", "secrets"),
        ("GET", "sys/mounts"),
        ("GET", "sys/auth"),
        ("POST", "sys/mounts/new"),
        ("LIST", "sys/policies/acl"),
        ("GET", "sys/policies/acl/default"),
        ("PUT", "sys/policies/acl/default"),
        ("DELETE", "sys/policies/acl/x"),
        ("PUT", "sys/seal"),
        ("POST", "sys/audit/verify"),
        ("LIST", "auth/approle/role"),
        ("POST", "auth/approle/role/r"),
        ("POST", "pki/issue"),
        ("LIST", "agents"),
        ("GET", "nothing/here"),
    ):
        answer = await node.call(method, path, token)
        assert answer.status_code == 403, (method, path, answer.text)
    assert (await node.call("POST", "auth/token/revoke-self", token)).status_code == 204


@ALONE
async def test_edited_default_policy_holds(own: Node) -> None:
    """``default`` may be narrowed; a token without a grant then cannot even look itself up."""
    token = (await create(own, policies=["default"]))["client_token"]
    changed = await own.call("PUT", "sys/policies/acl/default", json={"policy": native("secrets/none")})
    assert changed.status_code == 204
    assert await status(own, token) == 403
