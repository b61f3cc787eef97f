"""Many changes of authority at once: each is decided on the newest state, and none is turned away."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.gateway.behind import entries, ledger_is_good, sql
from tests.gateway.conftest import Node, native
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture


async def test_a_herd_of_revocations_all_succeed(node: Node, second: Second) -> None:
    """Fifty tokens that revoke themselves at the same moment through two processes all end."""
    made = await asyncio.gather(
        *(node.call("POST", "auth/token/create", json={"policies": ["default"]}) for _ in range(50))
    )
    tokens = [answer.json()["auth"]["client_token"] for answer in made]
    both = (node, second)
    answers = await asyncio.gather(
        *(both[n % 2].call("POST", "auth/token/revoke-self", token) for n, token in enumerate(tokens))
    )
    assert [answer.status_code for answer in answers] == [204] * 50
    left = await sql(node.settings.database_url, "SELECT count(*) AS n FROM tokens")
    assert left[0]["n"] == 1
    assert (await sql(node.settings.database_url, "SELECT count(*) AS n FROM accessors"))[0]["n"] == 1
    await ledger_is_good(node)


async def test_reads_go_on_while_authority_changes(node: Node, second: Second) -> None:
    """A read is answered rightly however often policies change around it."""
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    token = await node.token("app", native("secrets/a"))
    stop = asyncio.Event()

    async def changer(number: int) -> None:
        while not stop.is_set():
            answer = await node.call(
                "PUT", f"sys/policies/acl/other-{number}", json={"policy": native("secrets/b")}
            )
            assert answer.status_code == 204

    changers = [asyncio.create_task(changer(number)) for number in range(4)]
    for _ in range(50):
        answer = await second.call("GET", "secrets/a", token)
        assert answer.status_code == 200
    stop.set()
    await asyncio.gather(*changers)


async def test_changes_and_logins_go_on_together(node: Node, second: Second) -> None:
    """Policy writes and logins at once, from both processes, all succeed."""
    await node.call("POST", "auth/approle/role/web", json={"token_policies": ["app"]})
    role_id = (await node.call("GET", "auth/approle/role/web/role-id")).json()["data"]["role_id"]
    secret = await node.call("POST", "auth/approle/role/web/secret-id")
    login = {"role_id": role_id, "secret_id": secret.json()["data"]["secret_id"]}
    both: tuple[Node | Second, ...] = (node, second)

    async def logins(process: Node | Second) -> list[int]:
        return [
            (await process.call("POST", "auth/approle/login", "", json=login)).status_code for _ in range(20)
        ]

    async def changes(process: Node | Second, name: str) -> list[int]:
        return [
            (
                await process.call(
                    "PUT", f"sys/policies/acl/{name}", node.root, json={"policy": native(f"secrets/{n}")}
                )
            ).status_code
            for n in range(10)
        ]

    found = await asyncio.gather(
        *(logins(process) for process in both * 3),
        *(changes(process, f"p{n}") for n, process in enumerate(both * 2)),
    )
    assert [set(statuses) for statuses in found] == [{200}] * 6 + [{204}] * 4


async def test_an_intent_has_its_outcome_however_it_ends(node: Node) -> None:
    """A change that could not be decided in time is refused, and the ledger says how it ended."""
    url = node.settings.database_url
    refused = asyncio.Event()

    async def restless() -> None:
        """Move authority on without a pause, as no well-behaved process does."""
        connection = await asyncpg.connect(url)
        try:
            while not refused.is_set():
                await connection.execute("UPDATE cluster SET generation = generation + 1")
        finally:
            await connection.close()

    movers = [asyncio.create_task(restless()) for _ in range(2)]
    try:
        for n in range(40):
            answer = await node.call("POST", f"secrets/busy/{n}", json={"data": {"n": n}})
            assert answer.status_code in {200, 503}
            if answer.status_code == 503:
                break
        assert answer.status_code == 503
    finally:
        refused.set()
        await asyncio.gather(*movers)
    ended = await entries(url, request_id=answer.json()["request_id"])
    assert [(entry["kind"], entry["outcome"]) for entry in ended] == [
        ("intent", "begun"),
        ("outcome", "failed"),
    ]
    assert ended[-1]["reason"].startswith("unavailable")
    await ledger_is_good(node)
