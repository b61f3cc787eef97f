"""Auth methods move: roles and users come along, tokens that were given out at the old path end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from enrolled_hosts import certificate_of, enrolling_hub, host_of, read

from secrethub.auth.lockout import THRESHOLD
from secrethub.engines.token import issue_batch
from secrethub.operations.tidy import tidy
from tests.gateway.behind import ledger_is_good, refusing, sql
from tests.gateway.conftest import Node, native
from tests.gateway.kv import ok, status
from tests.gateway.pair import second
from tests.gateway.second_process import Second
from tests.gateway.shell import Cli, cli
from tests.gateway.test_auth_mounts import enable, good, login

__all__ = ["cli", "second"]  # the fixtures


async def move(node: Node, old: str, new: str, code: int = 200) -> list[str]:
    """Move an auth method; return the warnings."""
    moved = await node.call("POST", "sys/remount", json={"from": f"auth/{old}", "to": f"auth/{new}"})
    assert moved.status_code == code, moved.text
    return list(moved.json().get("warnings") or ())


async def test_everything_comes_along(node: Node, second: Second) -> None:
    """Roles, RoleIDs, SecretIDs, bindings and rate limits are at the new path; old tokens end everywhere."""
    await node.token("bound", native("secrets/a"))
    await node.token("readers", native("auth/token/create*", capabilities=("create", "update", "sudo")))
    await ok(node, "POST", "secret/data/a", {"data": {}})
    await enable(node)
    made, kept = await login(node, "machines"), await login(node)
    child = await node.call("POST", "auth/token/create", made["client_token"], json={})
    await ok(node, "POST", "sys/policies/bindings/bound", {"role": "machines/web"})
    for name, path in (("whole", "auth/machines/"), ("part", "auth/machines/role/*")):
        await ok(node, "POST", f"sys/quotas/rate-limit/{name}", {"rate": 1000, "path": path})
    old = (made["client_token"], child.json()["auth"]["client_token"])
    for process in (node, second):
        for token in old:
            assert (await process.call("GET", "auth/token/lookup-self", token)).status_code == 200
    warnings = await move(node, "machines", "floor/machines")
    assert "policies" in warnings[0]
    assert "tokens" in warnings[1]
    body = {"role_id": made["role_id"], "secret_id": made["secret_id"]}
    for process in (second, node):
        for token in old:
            assert (await process.call("GET", "auth/token/lookup-self", token)).status_code == 403
        assert (await process.call("GET", "auth/token/lookup-self", kept["client_token"])).status_code == 200
        assert (await process.call("POST", "auth/machines/login", "", json=body)).status_code in {403, 404}
        entered = await process.call("POST", "auth/floor/machines/login", "", json=body)
        assert entered.status_code == 200, entered.text
        token = entered.json()["auth"]["client_token"]
        assert (await process.call("GET", "secret/data/a", token)).status_code == 200
    (subject,) = (await ok(node, "GET", "sys/policies/bindings/bound"))["subjects"]
    assert (subject["kind"], subject["name"]) == ("approle", "floor/machines/web")
    paths = [(await ok(node, "GET", f"sys/quotas/rate-limit/{name}"))["path"] for name in ("whole", "part")]
    assert paths == ["auth/floor/machines/", "auth/floor/machines/role/*"]
    gone = "SELECT key FROM tokens WHERE starts_with(body->>'path', 'auth/machines/')"
    assert await sql(node.settings.database_url, gone) == []
    # What is enabled at the old path is another method.
    await enable(node)
    assert await status(node, "LIST", "auth/machines/role") == 404
    assert await status(node, "POST", "auth/machines/login", body, token="") == 400
    assert not await good(node, old[0])
    await ledger_is_good(node)


async def test_batch_tokens_do_not_come_back(node: Node) -> None:
    """A batch token is void once its method moved, also when the method moves back."""
    await enable(node)
    made = issue_batch(
        node.process.core,
        node.process.core.clock.now(),
        display_name="b",
        policies=["default"],
        ttl=600,
        meta={},
        path="auth/machines/login",
    ).client_token
    assert await good(node, made)
    await move(node, "machines", "elsewhere")
    assert not await good(node, made)
    await move(node, "elsewhere", "machines")
    assert not await good(node, made)
    assert await good(node, (await login(node, "machines"))["client_token"])


async def test_locked_names_stay_locked(node: Node) -> None:
    """Nobody guesses on by having a method moved; users and certificate roles move as roles do."""
    await ok(node, "POST", "auth/userpass/users/ada", {"password": "canary-password"})
    certificate = (await ok(node, "GET", "pki/cert/ca"))["certificate"]
    await ok(node, "POST", "auth/cert/certs/web", {"certificate": certificate})
    for _ in range(THRESHOLD):
        await status(node, "POST", "auth/userpass/login/ada", {"password": "wrong"}, token="")
    await move(node, "userpass", "people")
    await move(node, "cert", "partners")
    assert (await ok(node, "LIST", "auth/people/users"))["keys"] == ["ada"]
    assert (await ok(node, "LIST", "auth/partners/certs"))["keys"] == ["web"]
    right = {"password": "canary-password"}
    assert await status(node, "POST", "auth/people/login/ada", right, token="") in {400, 403}
    (found,) = (await ok(node, "GET", "sys/locked-users"))["by_namespace"][0]["mount_accessors"]
    assert found["alias_identifiers"] == ["ada"]
    await ok(node, "POST", f"sys/locked-users/{found['mount_accessor']}/unlock/ada")
    assert await status(node, "POST", "auth/people/login/ada", right, token="") == 200


async def test_a_move_that_was_interrupted(node: Node) -> None:
    """It is either not done at all, or done: old tokens are void, their path is blocked until they went."""
    url = node.settings.database_url
    await enable(node)
    made = await login(node, "machines")
    async with refusing(url, "DELETE OR INSERT OR UPDATE ON mounts"):
        await move(node, "machines", "floor", code=503)
    assert await good(node, made["client_token"])
    assert await status(node, "GET", "auth/floor/role/web") == 404
    async with refusing(url, "DELETE ON tokens"):
        await move(node, "machines", "floor")
    assert not await good(node, made["client_token"])
    assert await status(node, "GET", "auth/floor/role/web") == 200
    assert await status(node, "POST", "sys/auth/machines", {"type": "approle"}) == 400
    await move(node, "floor", "machines", code=400)
    await tidy(node.process.core)
    assert await sql(url, "SELECT key FROM tokens WHERE starts_with(body->>'path', 'auth/machines/')") == []
    await move(node, "floor", "machines")
    assert not await good(node, made["client_token"])
    assert await status(node, "GET", "auth/machines/role/web") == 200


async def test_logins_while_it_moves(node: Node) -> None:
    """No token that was given out at the old path is taken once the move was answered."""
    await enable(node)
    made = await login(node, "machines")
    body = {"role_id": made["role_id"], "secret_id": made["secret_id"]}
    given: list[str] = []

    async def enter() -> None:
        answer = await node.call("POST", "auth/machines/login", "", json=body)
        if answer.is_success:
            given.append(answer.json()["auth"]["client_token"])
        else:
            assert answer.status_code in {400, 403, 404, 503}

    entering = [asyncio.create_task(enter()) for _ in range(30)]
    await asyncio.sleep(0)
    await move(node, "machines", "floor")
    await asyncio.gather(*entering)
    assert not any([await good(node, token) for token in given])


async def test_who_may_move(node: Node, cli: Cli) -> None:
    """It takes sudo on sys/remount, and a right at the old path is none at the new one; the command line."""
    every = ("create", "read", "update", "delete", "list")
    mover = await node.token("mover", native("sys/**", capabilities=every))
    keeper = await node.token("keeper", native("auth/approle/**", capabilities=every))
    await ok(node, "POST", "auth/approle/role/web", {})
    body = {"from": "auth/approle", "to": "auth/hosts"}
    for token in (mover, keeper):
        assert await status(node, "POST", "sys/remount", body, token=token) == 403
    assert await status(node, "GET", "auth/approle/role/web", token=keeper) == 200
    said = await cli("auth", "move", "approle", "auth/hosts/")
    assert said == "The auth method at auth/approle/ is at auth/hosts/ now.\n"
    assert await status(node, "GET", "auth/hosts/role/web", token=keeper) == 403
    assert "no auth method" in await cli("auth", "move", "approle", "x", code=1)


async def test_agents_stay_who_they_are(database_url: str, tmp_path: Path) -> None:
    """An agent keeps the policies of its role, which is called after the new path from then on."""
    async with enrolling_hub(database_url, tmp_path) as hub:
        host = await host_of(hub, "web")
        agent = certificate_of(await host.enroll())
        await hub.ask("write", "sys/remount", {"from": "auth/approle", "to": "auth/hosts"})
        assert await read(hub, agent) == "canary-1"
        assert (await hub.data("read", f"agents/{agent.agent_id}"))["role"] == "hosts/web"
        approved = await hub.data("write", f"agents/{agent.agent_id}/approve", {"role": "hosts/web"})
        assert approved["role"] == "hosts/web"
