"""Auth methods: enabled beside each other, tuned, and disabled with every token that they gave out."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from secrethub.engines import auth_methods
from secrethub.engines.token import issue_batch
from secrethub.operations.tidy import tidy
from secrethub.storage.authority import MOUNTS
from tests.gateway.authority_core import MovingClock
from tests.gateway.behind import entries, ledger_is_good, mount_id, refusing, sql
from tests.gateway.conftest import SHARING, Node, native
from tests.gateway.kv import ok, status
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture


IMPOSSIBLE: list[tuple[str, dict[str, Any]]] = [
    ("x", {"type": "ldap"}),
    ("x", {"type": "token"}),
    ("x", {"type": "kv"}),
    ("x", {"type": ""}),
    ("x", {}),
    ("x", {"type": "approle", "local": True}),
    ("x", {"type": "approle", "seal_wrap": True}),
    ("x", {"type": "approle", "options": {"a": "b"}}),
    ("x", {"type": "approle", "plugin_name": "mine"}),
    ("x", {"type": "approle", "config": {"token_type": "batch"}}),
    ("x", {"type": "approle", "config": {"listing_visibility": "unauth"}}),
    ("x", {"type": "approle", "config": {"passthrough_request_headers": ["X-A"]}}),
    ("x", {"type": "approle", "config": {"audit_non_hmac_request_keys": ["secret_id"]}}),
    ("x", {"type": "approle", "config": {"default_lease_ttl": "2h", "max_lease_ttl": "1h"}}),
    ("x", {"type": "approle", "description": "a\u0000b"}),
    ("approle", {"type": "approle"}),
    ("approle/below", {"type": "approle"}),
    ("token", {"type": "approle"}),
    ("token/below", {"type": "approle"}),
    ("w*", {"type": "approle"}),
    ("w/+/x", {"type": "approle"}),
    ("w//x", {"type": "approle"}),
    ("w/%2e%2e/x", {"type": "approle"}),
    ("w%2fx", {"type": "approle"}),
    ("w%0ax", {"type": "approle"}),
]


async def login(node: Node, mount: str = "approle", role: str = "web") -> dict[str, Any]:
    """Make a role at a mount, if there is none, and log in."""
    path = f"auth/{mount}/role/{role}"
    if await status(node, "GET", path) == 404:
        await ok(node, "POST", path, {"token_policies": ["readers"]})
    role_id = (await ok(node, "GET", f"{path}/role-id"))["role_id"]
    secret_id = (await ok(node, "POST", f"{path}/secret-id"))["secret_id"]
    body = {"role_id": role_id, "secret_id": secret_id}
    answer = await node.call("POST", f"auth/{mount}/login", "", json=body)
    assert answer.status_code == 200, answer.text
    return {**answer.json()["auth"], **body}


async def enable(node: Node, path: str = "machines", **config: Any) -> None:
    """Enable an AppRole mount."""
    await ok(node, "POST", f"sys/auth/{path}", {"type": "approle", "config": config})


async def good(node: Node, token: str) -> bool:
    """Tell whether a token is taken."""
    return await status(node, "GET", "auth/token/lookup-self", token=token) == 200


@SHARING
async def test_a_method_is_enabled_told_and_tuned(shared_node: Node) -> None:
    """Lists, reads and tuning tell what was asked for, at either path that Vault's clients use."""
    node = shared_node
    body = {"type": "approle", "description": "of the floor", "config": {"default_lease_ttl": "1h"}}
    await ok(node, "POST", "sys/auth/team/machines", body)
    shown = (await ok(node, "GET", "sys/auth"))["team/machines/"]
    assert shown == await ok(node, "GET", "sys/auth/team/machines")
    assert (shown["type"], shown["description"]) == ("approle", "of the floor")
    assert shown["accessor"].startswith("approle_")
    assert shown["config"]["default_lease_ttl"] == 3600
    assert shown["config"]["token_type"] == "default-service"
    for path in ("sys/auth/team/machines/tune", "sys/mounts/auth/team/machines/tune"):
        await ok(node, "POST", path, {"max_lease_ttl": "2h", "description": path})
        tuned = await ok(node, "GET", path)
        assert (tuned["max_lease_ttl"], tuned["default_lease_ttl"]) == (7200, 3600)
        assert tuned["description"] == path
    assert "auth/team/machines/" not in await ok(node, "GET", "sys/mounts")
    seen = (await ok(node, "GET", "sys/internal/ui/mounts"))["auth"]
    assert {"approle/", "team/machines/", "token/", "userpass/"} <= set(seen)
    one = await ok(node, "GET", "sys/internal/ui/mounts/auth/team/machines/role/x")
    assert (one["path"], one["type"]) == ("auth/team/machines/", "approle")


@SHARING
async def test_what_cannot_be_enabled(shared_node: Node) -> None:
    """What does not exist, is taken, or would not be done, is refused and leaves nothing behind."""
    node = shared_node
    before = await ok(node, "GET", "sys/auth")
    for path, body in IMPOSSIBLE:
        assert await status(node, "POST", f"sys/auth/{path}", body) == 400, (path, body)
    assert await ok(node, "GET", "sys/auth") == before


@SHARING
async def test_mounts_of_one_kind_never_meet(shared_node: Node) -> None:
    """Roles of the same name at two mounts have their own policies, ids, lists and ends."""
    node = shared_node
    await node.token("readers", native("secrets/a"))
    await enable(node, "pair")
    here, there = await login(node), await login(node, "pair")
    await ok(node, "POST", "auth/pair/role/web", {"token_policies": ["other"]})
    await ok(node, "POST", "auth/pair/role/only-there", {})
    assert (await ok(node, "GET", "auth/approle/role/web"))["token_policies"] == ["readers"]
    assert (await ok(node, "LIST", "auth/approle/role"))["keys"] == ["web"]
    assert (await ok(node, "LIST", "auth/pair/role"))["keys"] == ["only-there", "web"]
    for mount, ids in (("approle", there), ("pair", here)):
        body = {"role_id": ids["role_id"], "secret_id": ids["secret_id"]}
        assert await status(node, "POST", f"auth/{mount}/login", body, token="") == 400
    mixed = {"role_id": here["role_id"], "secret_id": there["secret_id"]}
    assert await status(node, "POST", "auth/approle/login", mixed, token="") == 400
    await ok(node, "DELETE", "auth/pair/role/web")
    again = await login(node)
    assert await good(node, again["client_token"])
    assert (await ok(node, "GET", "auth/approle/role/web"))["token_policies"] == ["readers"]


@SHARING
async def test_limits_of_a_mount_hold_for_its_tokens(shared_node: Node) -> None:
    """A login without a time of its own has the mount's; none, and no renewal, goes beyond its maximum."""
    node = shared_node
    await enable(node, "limited", default_lease_ttl="10m", max_lease_ttl="1h")
    assert (await login(node, "limited"))["lease_duration"] == 600
    await ok(node, "POST", "auth/limited/role/long", {"token_ttl": "20h", "token_max_ttl": "40h"})
    made = await login(node, "limited", "long")
    assert made["lease_duration"] == 3600
    renewed = await node.call("POST", "auth/token/renew-self", made["client_token"], json={"increment": "9h"})
    assert renewed.json()["auth"]["lease_duration"] <= 3600
    short = await login(node, "limited")
    renewed = await node.call("POST", "auth/token/renew-self", short["client_token"])
    assert renewed.json()["auth"]["lease_duration"] == 600
    await ok(node, "POST", "sys/auth/limited/tune", {"default_lease_ttl": "5m", "max_lease_ttl": "5m"})
    assert (await login(node, "limited"))["lease_duration"] == 300
    for earlier in (short, made):
        body = {"token": earlier["client_token"], "increment": "30m"}
        renewed = await node.call("POST", "auth/token/renew", json=body)
        assert renewed.json()["auth"]["lease_duration"] <= 300


async def test_a_mount_may_let_its_tokens_live_longer(node: Node) -> None:
    """A mount's maximum takes the place of the system's, for logins, for tokens of tokens, and renewals."""
    for path in ("approle", "token"):
        await ok(node, "POST", f"sys/auth/{path}/tune", {"max_lease_ttl": "2000h"})
    body = {"token_ttl": "1000h", "token_max_ttl": "1500h"}
    await ok(node, "POST", "auth/approle/role/web", body)
    auth = await login(node)
    answer = await node.call("POST", "auth/token/create", json={"ttl": "1000h", "policies": ["default"]})
    child = answer.json()["auth"]
    for made, most in ((auth, 1500), (child, 2000)):
        assert made["lease_duration"] == 1000 * 3600
        body = {"token": made["client_token"], "increment": "3000h"}
        renewed = await node.call("POST", "auth/token/renew", json=body)
        assert most * 3600 - 60 <= renewed.json()["auth"]["lease_duration"] <= most * 3600
    await ok(node, "POST", "sys/auth/token/tune", {"default_lease_ttl": "1h", "max_lease_ttl": "2h"})
    answer = await node.call("POST", "auth/token/create", json={"policies": ["default"]})
    assert answer.json()["auth"]["lease_duration"] == 3600
    for asked in ({"ttl": "5h"}, {"period": "5h"}):
        answer = await node.call("POST", "auth/token/create", json={"policies": ["default"], **asked})
        assert answer.json()["auth"]["lease_duration"] == 7200


async def test_what_lives_beyond_its_maximum_is_not_renewed(node: Node) -> None:
    """Whoever's maximum has passed meanwhile is told so, and lives as long as it would have."""
    auth = await login(node)
    clock = MovingClock()
    node.process.core.clock = clock
    clock.ahead += timedelta(hours=2)
    await ok(node, "POST", "auth/approle/role/web", {"token_max_ttl": "1h"})
    refused = await node.call("POST", "auth/token/renew-self", auth["client_token"])
    assert (refused.status_code, refused.json()["errors"]) == (400, ["past the max TTL, cannot renew"])
    assert await good(node, auth["client_token"])


async def test_the_end_of_a_method_is_the_end_of_its_tokens(node: Node, second: Second) -> None:
    """Its tokens and their children end on every node before the answer; others, and orphans, do not."""
    await node.token("readers", native("auth/token/create*", capabilities=("create", "update", "sudo")))
    await enable(node)
    await enable(node, "machines-too")
    gone, kept, other = await login(node, "machines"), await login(node), await login(node, "machines-too")
    for role in ("web", "machines/web"):
        await ok(node, "POST", "sys/policies/bindings/readers", {"role": role})
    children = []
    for path in ("auth/token/create", "auth/token/create-orphan"):
        made = await node.call("POST", path, gone["client_token"], json={})
        children.append(made.json()["auth"]["client_token"])
    # Decisions that a process remembers end as well.
    for process in (node, second):
        for token in (gone["client_token"], *children):
            assert (await process.call("GET", "auth/token/lookup-self", token)).status_code == 200
    assert await status(node, "DELETE", "sys/auth/machines") == 204
    for process in (node, second):
        found = [
            (await process.call("GET", "auth/token/lookup-self", token)).status_code
            for token in (gone["client_token"], *children, kept["client_token"], other["client_token"])
        ]
        assert found == [403, 403, 200, 200, 200]
    url = node.settings.database_url
    assert [row["key"] for row in await sql(url, "SELECT key FROM bindings")] == [
        f"approle/{await mount_id(url)}/web"
    ]
    for table in ("approles", "role_ids", "secret_ids"):
        assert len(await sql(url, f"SELECT key FROM {table}")) == 2, table
    assert await sql(url, "SELECT key FROM tokens WHERE starts_with(body->>'path', 'auth/machines/')") == []
    outcome = await entries(url, operation="sys.auth.disable", kind="outcome")
    assert [entry["outcome"] for entry in outcome] == ["done"]
    assert await status(node, "DELETE", "sys/auth/machines") == 204
    await enable(node)
    assert await status(node, "LIST", "auth/machines/role") == 404
    assert not await good(node, gone["client_token"])
    await ledger_is_good(node)


@SHARING
async def test_batch_tokens_end_with_their_method(shared_node: Node) -> None:
    """A batch token of a method that was disabled is none of the one that is enabled there later."""
    node = shared_node
    core = node.process.core
    await enable(node, "batch")

    def batch(age: float) -> str:
        made = core.clock.now() - timedelta(seconds=age)
        known: dict[str, Any] = {"display_name": "b", "policies": ["default"], "ttl": 600, "meta": {}}
        return issue_batch(core, made, path="auth/batch/login", **known).client_token

    token = batch(0)
    assert await good(node, token)
    assert not await good(node, batch(60))
    await ok(node, "DELETE", "sys/auth/batch")
    assert not await good(node, token)
    await enable(node, "batch")
    assert not await good(node, token)
    assert await good(node, batch(0))


async def test_a_disabling_that_was_interrupted_goes_on(node: Node) -> None:
    """Without an answer its tokens are void all the same, nothing takes its place, and tidying finishes."""
    await enable(node)
    made = await login(node, "machines")
    async with refusing(node.settings.database_url, "DELETE ON approles"):
        assert await status(node, "DELETE", "sys/auth/machines") == 503
    assert not await good(node, made["client_token"])
    assert await status(node, "POST", "sys/auth/machines", {"type": "approle"}) == 400
    await tidy(node.process.core)
    assert await sql(node.settings.database_url, "SELECT key FROM approles") == []
    await enable(node)
    assert await status(node, "LIST", "auth/machines/role") == 404


@SHARING
async def test_a_removal_that_comes_late_spares_what_is_enabled_anew(shared_node: Node) -> None:
    """Whoever tidies a leaving method and was held up removes nothing of the next one at its path."""
    node = shared_node
    await enable(node, "late")
    before = await mount_id(node.settings.database_url, "auth/late/")
    await ok(node, "DELETE", "sys/auth/late")
    await enable(node, "late")
    made = await login(node, "late")
    await auth_methods.remove_rows(node.process.core, "auth/late/", "approle", before)
    assert await good(node, made["client_token"])
    assert await status(node, "GET", "auth/late/role/web") == 200


async def test_the_usual_mount_can_go_and_come_back(node: Node) -> None:
    """auth/approle/ is disabled as any other and leaves other mounts alone; auth/token/ stays."""
    await enable(node)
    gone, kept = await login(node), await login(node, "machines")
    await ok(node, "DELETE", "sys/auth/approle")
    assert not await good(node, gone["client_token"])
    assert await good(node, kept["client_token"])
    assert await status(node, "GET", "auth/approle/role/web") == 404
    await enable(node, "approle")
    assert await status(node, "GET", "auth/approle/role/web") == 404
    refused = await node.call("DELETE", "sys/auth/token")
    assert refused.json()["errors"] == ["token credential backend cannot be disabled"]
    assert await good(node, node.root)


@SHARING
async def test_enabling_takes_sudo(shared_node: Node) -> None:
    """A right to write the path is not enough, by neither path of tuning; the list takes none of it."""
    node = shared_node
    every = ("create", "read", "update", "delete", "list")
    token = await node.token("some", native("sys/auth", "sys/auth/**", "sys/mounts/**", capabilities=every))
    assert await status(node, "GET", "sys/auth", token=token) == 200
    for method, path, body in (
        ("POST", "sys/auth/allowed", {"type": "approle"}),
        ("GET", "sys/auth/approle", None),
        ("DELETE", "sys/auth/approle", None),
        ("GET", "sys/auth/approle/tune", None),
        ("POST", "sys/auth/approle/tune", {"max_lease_ttl": "1h"}),
        ("POST", "sys/mounts/auth/approle/tune", {"max_lease_ttl": "1h"}),
    ):
        assert await status(node, method, path, body, token=token) == 403, path
    token = await node.token("more", native("sys/auth/**", capabilities=(*every, "sudo")))
    assert await status(node, "POST", "sys/auth/allowed", {"type": "approle"}, token=token) == 204


@SHARING
async def test_enabling_the_same_path_twice_at_once(shared_node: Node) -> None:
    """Of requests for overlapping paths one wins."""
    node = shared_node
    answers = await asyncio.gather(
        *(node.call("POST", f"sys/auth/{path}", json={"type": "approle"}) for path in ("r", "r/a", "r"))
    )
    assert sorted(answer.status_code for answer in answers) == [204, 400, 400]


async def test_a_method_behind_a_tampered_row_gives_no_rights(node: Node) -> None:
    """Whoever edits the row of a disabled method does not bring its tokens back."""
    await enable(node)
    made = await login(node, "machines")
    url = node.settings.database_url
    await sql(url, "UPDATE mounts SET body = jsonb_set(body, '{uuid}', '\"x\"') WHERE key = 'auth/machines/'")
    assert not await good(node, made["client_token"])
    assert MOUNTS.bucket("auth/machines/") != MOUNTS.bucket("auth/token/")
    assert await good(node, node.root)
