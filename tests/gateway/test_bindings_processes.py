"""Bindings in two processes: any order of changes, caches that are dropped, and a process that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass

import httpx2
import pytest

from tests.gateway.behind import entries, ledger_is_good
from tests.gateway.conftest import Node, native
from tests.gateway.pair import second
from tests.gateway.second_process import Second
from tests.gateway.test_tokens_processes import killed_before_the_outcome

__all__ = ["second"]  # the fixture

NAMES = ("a", "b")


@dataclass(frozen=True)
class Caller:
    """A token of an AppRole login, its accessor and its role."""

    token: str
    accessor: str
    role: str


@pytest.fixture
async def callers(node: Node) -> list[Caller]:
    """Two callers of two roles, and policies that let read one secret each."""
    for name in NAMES:
        await node.call("POST", f"secrets/{name}", json={"data": {"k": 1}})
        await node.call("PUT", f"sys/policies/acl/{name}", json={"policy": native(f"secrets/{name}")})
    found = []
    for role in ("r1", "r2"):
        await node.call("POST", f"auth/approle/role/{role}", json={})
        path = f"auth/approle/role/{role}"
        given = {
            "role_id": (await node.call("GET", f"{path}/role-id")).json()["data"]["role_id"],
            "secret_id": (await node.call("POST", f"{path}/secret-id")).json()["data"]["secret_id"],
        }
        auth = (await node.call("POST", "auth/approle/login", "", json=given)).json()["auth"]
        found.append(Caller(auth["client_token"], auth["accessor"], role))
    return found


async def test_any_order_of_changes(node: Node, second: Second, callers: list[Caller]) -> None:
    """Whatever was acknowledged by either process decides the next request to each, whatever they forget."""
    chance = random.Random(7)
    bound: set[tuple[str, str]] = set()
    busy = asyncio.create_task(_logins(node))
    for step in range(120):
        caller, policy = chance.choice(callers), chance.choice(NAMES)
        kind = chance.choice(("role", "accessor"))
        subject = getattr(caller, kind)
        change = chance.choice(("bind", "unbind", "forget", "ask"))
        if change in {"bind", "unbind"}:
            path = f"sys/policies/bindings/{policy}" + ("/remove" if change == "unbind" else "")
            where = chance.choice((node.call, second.call))
            answer = await where("POST", path, node.root, json={kind: subject})
            assert answer.status_code == 204, (step, answer.text)
            (bound.add if change == "bind" else bound.discard)((subject, policy))
        elif change == "forget":
            node.process.core.bindings.drop()
        for who in callers:
            for name in NAMES:
                expected = 200 if {(who.role, name), (who.accessor, name)} & bound else 403
                where = chance.choice((node.call, second.call))
                answer = await where("GET", f"secrets/{name}", who.token)
                assert answer.status_code == expected, (step, change, who.role, name)
    busy.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await busy
    await ledger_is_good(node)


async def _logins(node: Node) -> None:
    """Make tokens without a pause: announcements that move authority all the time."""
    while True:
        await node.call("POST", "auth/token/create", json={"ttl": "1m"})


async def test_read_while_it_is_changed(node: Node, callers: list[Caller]) -> None:
    """A process that reads all bindings while one is taken away does not keep the one it saw."""
    caller = callers[0]
    core = node.process.core
    for _ in range(30):
        await node.call("POST", "sys/policies/bindings/a", json={"accessor": caller.accessor})
        core.bindings.drop()
        asked = [asyncio.create_task(node.call("GET", "secrets/a", caller.token)) for _ in range(3)]
        removed = await node.call(
            "POST", "sys/policies/bindings/a/remove", json={"accessor": caller.accessor}
        )
        assert removed.status_code == 204
        assert (await node.call("GET", "secrets/a", caller.token)).status_code == 403
        await asyncio.gather(*asked)
        assert (await node.call("GET", "secrets/a", caller.token)).status_code == 403


@pytest.mark.parametrize("change", ["bind", "unbind"])
async def test_killed_before_the_answer(
    node: Node, second: Second, callers: list[Caller], change: str
) -> None:
    """What a killed process had committed holds everywhere, with its intent in the ledger."""
    caller = callers[0]
    path = "sys/policies/bindings/a"
    there = "SELECT 1 FROM bindings"
    if change == "unbind":
        assert (await node.call("POST", path, json={"role": caller.role})).status_code == 204
        path, there = path + "/remove", "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM bindings)"
    await killed_before_the_outcome(node, second, "POST", path, node.root, there, json={"role": caller.role})
    expected = 200 if change == "bind" else 403
    assert (await node.call("GET", "secrets/a", caller.token)).status_code == expected
    assert len(await entries(node.settings.database_url, path=path, kind="intent")) == 1
    assert await entries(node.settings.database_url, path=path, kind="outcome") == []
    await ledger_is_good(node)


async def test_killed_while_many_are_bound(node: Node, second: Second, callers: list[Caller]) -> None:
    """Of many bindings under way every acknowledged one is there, and none without an intent."""
    names = [f"p{number}" for number in range(40)]
    for name in names:
        await node.call("PUT", f"sys/policies/acl/{name}", json={"policy": native(f"secrets/{name}")})
    acknowledged: set[str] = set()
    body = {"role": callers[0].role}

    async def bind(name: str) -> None:
        with contextlib.suppress(httpx2.HTTPError):
            answer = await second.call("POST", f"sys/policies/bindings/{name}", node.root, json=body)
            assert answer.status_code == 204
            acknowledged.add(name)
            if len(acknowledged) == 5:
                second.kill()

    await asyncio.gather(*map(bind, names))
    assert acknowledged
    told = (await node.call("POST", "sys/policies/bound", json=body)).json()["data"]["policies"]
    assert acknowledged <= set(told)
    intents = await entries(node.settings.database_url, operation="sys.bindings.bind", kind="intent")
    assert set(told) <= {entry["path"].rpartition("/")[2] for entry in intents}
    await ledger_is_good(node)
