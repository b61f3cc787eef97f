"""Two processes: uses, wrapped answers and revocations count once and everywhere, also when one is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.pair import second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture


@pytest.fixture
async def hub(node: Node) -> Node:
    """A node with a secret and a policy that reads it."""
    await node.call("POST", "secrets/app/db", json={"data": {"k": "canary"}})
    await node.call("PUT", "sys/policies/acl/reader", json={"policy": native("secrets/app/**")})
    return node


async def create(hub: Node, **body: Any) -> str:
    made = await hub.call("POST", "auth/token/create", json={"policies": ["reader"], **body})
    return str(made.json()["auth"]["client_token"])


async def wrapped(hub: Node) -> str:
    headers = {"X-Vault-Wrap-TTL": "60"}
    return str((await hub.call("GET", "secrets/app/db", headers=headers)).json()["wrap_info"]["token"])


async def test_uses_are_counted_once_for_both(hub: Node, second: Second) -> None:
    """However requests are spread over two processes, as many pass as there were uses."""
    for uses in (1, 2, 9):
        token = await create(hub, num_uses=uses)
        answers = await asyncio.gather(
            *(process.call("GET", "secrets/app/db", token) for process in (hub, second) * 12)
        )
        codes = [answer.status_code for answer in answers]
        assert codes.count(200) == uses
        assert set(codes) <= {200, 403}
    assert len(await sql(hub.settings.database_url, "SELECT 1 FROM tokens")) == 1


async def test_one_of_many_opens_a_wrapped_answer(hub: Node, second: Second) -> None:
    """Of twenty clients at two processes one gets the answer."""
    for _ in range(4):
        token = await wrapped(hub)
        answers = await asyncio.gather(
            *(process.call("POST", "sys/wrapping/unwrap", token) for process in (hub, second) * 10)
        )
        codes = [answer.status_code for answer in answers]
        assert codes.count(200) == 1
        assert set(codes) <= {200, 400, 403}
    assert await sql(hub.settings.database_url, "SELECT 1 FROM cubbyholes") == []


HOLD = """CREATE FUNCTION hold_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN
              IF NEW.kind = 'outcome' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
              RETURN NEW;
          END $$"""
WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"


async def killed_before_the_outcome(
    hub: Node, second: Second, method: str, path: str, token: str, spent: str, **how: Any
) -> None:
    """Kill the second process once ``spent`` is true in the database and before the outcome is written."""
    url = hub.settings.database_url
    await sql(url, HOLD)
    await sql(
        url,
        "CREATE TRIGGER hold BEFORE INSERT ON audit_entries FOR EACH ROW EXECUTE FUNCTION hold_outcome()",
    )
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock(4711)")
        asked = asyncio.create_task(second.call(method, path, token, **how))
        await until(lambda: sql(url, WAITING))
        assert await sql(url, spent)
        second.kill()
        with pytest.raises(httpx2.HTTPError):
            await asked
        await sql(url, f"SELECT pg_terminate_backend(pid) FROM ({WAITING}) AS waiting")
        await sql(url, "DROP FUNCTION hold_outcome CASCADE")
    finally:
        await connection.close()


async def test_killed_between_use_and_answer(hub: Node, second: Second) -> None:
    """A use that was counted stays spent when the process is killed before it answers, and no other is."""
    token = await create(hub, num_uses=2)
    spent = "SELECT 1 FROM tokens WHERE body->'uses_left' = '1'::jsonb"
    await killed_before_the_outcome(hub, second, "GET", "secrets/app/db", token, spent)
    assert (await hub.call("GET", "secrets/app/db", token)).status_code == 200
    assert (await hub.call("GET", "secrets/app/db", token)).status_code == 403
    await ledger_is_good(hub, state=True)


async def test_killed_between_opening_and_answer(hub: Node, second: Second) -> None:
    """An answer that was taken out is not given out again when the process is killed before it answers."""
    token = await wrapped(hub)
    await killed_before_the_outcome(
        hub,
        second,
        "POST",
        "sys/wrapping/unwrap",
        token,
        "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM cubbyholes)",
    )
    again = await hub.call("POST", "sys/wrapping/unwrap", json={"token": token})
    assert again.json()["errors"] == ["wrapping token is not valid or does not exist"]
    await ledger_is_good(hub, state=True)


async def test_revocations_reach_batch_tokens(hub: Node, second: Second) -> None:
    """A batch token ends in the other process when its parent is revoked, though that process stood still."""
    makes = native("auth/token/create", capabilities=("update",))
    await hub.call("PUT", "sys/policies/acl/makes", json={"policy": makes})
    parent = await create(hub, policies=["reader", "makes"])
    made = await hub.call("POST", "auth/token/create", parent, json={"type": "batch"})
    batch = made.json()["auth"]["client_token"]
    for _ in range(2):
        assert (await second.call("GET", "secrets/app/db", batch)).status_code == 200
    second.stop()
    revoked = await hub.call("POST", "auth/token/revoke", json={"token": parent})
    assert revoked.status_code == 204
    second.go_on()
    assert (await second.call("GET", "secrets/app/db", batch)).status_code == 403


async def test_tokens_below_a_prefix_are_revoked(hub: Node, second: Second) -> None:
    """revoke-prefix below auth/ ends the tokens that were made there, everywhere, and nobody else's."""
    for name, suffix in (("one", "v1"), ("two", "v10")):
        body = {"allowed_policies": ["reader"], "path_suffix": suffix}
        await hub.call("POST", f"auth/token/roles/{name}", json=body)

    async def made(name: str) -> str:
        answer = await hub.call("POST", f"auth/token/create/{name}", json={"ttl": "1h"})
        return str(answer.json()["auth"]["client_token"])

    ended, spared = [await made("one") for _ in range(5)], [await made("two"), await create(hub)]
    for token in (*ended, *spared):
        assert (await second.call("GET", "secrets/app/db", token)).status_code == 200
    for prefix in ("auth/token/create/o", "auth/token/create/one/v", "auth/tok", "auth/approle"):
        answer = await hub.call("PUT", f"sys/leases/revoke-prefix/{prefix}")
        assert answer.json()["data"] == {"leases": 0}
    second.stop()
    answer = await hub.call("PUT", "sys/leases/revoke-prefix/auth/token/create/one/v1")
    assert answer.json()["data"] == {"leases": 5}
    second.go_on()
    for token in ended:
        assert (await second.call("GET", "secrets/app/db", token)).status_code == 403
    for token in spared:
        assert (await second.call("GET", "secrets/app/db", token)).status_code == 200
    answer = await hub.call("PUT", "sys/revoke-force/auth/token")
    assert answer.json()["data"] == {"leases": 2}
    assert (await second.call("GET", "secrets/app/db", spared[0])).status_code == 403
    # Root tokens have no end, so there is nothing to revoke.
    assert (await second.call("GET", "secrets/app/db", hub.root)).status_code == 200
    await ledger_is_good(hub, state=True)


async def test_revoking_a_prefix_while_authority_changes(hub: Node) -> None:
    """However often others change authority meanwhile, what was ended is counted, and counted once."""
    for number in range(4):
        tokens = [await create(hub) for _ in range(5)]
        changes = [
            hub.call("PUT", f"sys/policies/acl/x{name}", json={"policy": native(f"secrets/{number}/{name}")})
            for name in range(12)
        ]
        answer, *_ = await asyncio.gather(hub.call("PUT", "sys/leases/revoke-prefix/auth"), *changes)
        assert answer.json()["data"] == {"leases": len(tokens)}


async def test_a_role_changed_in_the_other_process(hub: Node, second: Second) -> None:
    """A token is made as the role is now, in a process that knew what it was."""
    await hub.call("POST", "auth/token/roles/r", json={"allowed_policies": ["reader", "wide"]})
    for _ in range(2):
        made = await second.call("POST", "auth/token/create/r", hub.root, json={})
        assert "wide" in made.json()["auth"]["policies"]
    second.stop()
    await hub.call("POST", "auth/token/roles/r", json={"allowed_policies": ["reader"]})
    second.go_on()
    made = await second.call("POST", "auth/token/create/r", hub.root, json={})
    assert made.json()["auth"]["policies"] == ["default", "reader"]


async def test_cubbyholes_are_as_fresh_as_the_database(hub: Node, second: Second) -> None:
    """What is kept by way of one process is read, listed and deleted by way of the other."""
    token = await create(hub, policies=["default"])
    for n in range(5):
        assert (await hub.call("POST", "cubbyhole/a", token, json={"n": n})).status_code == 204
        assert (await second.call("GET", "cubbyhole/a", token)).json()["data"] == {"n": n}
    assert (await second.call("DELETE", "cubbyhole/a", token)).status_code == 204
    assert (await hub.call("GET", "cubbyhole/a", token)).status_code == 404
    assert (await hub.call("POST", "auth/token/revoke", json={"token": token})).status_code == 204
    assert (await second.call("GET", "cubbyhole/a", token)).status_code == 403
