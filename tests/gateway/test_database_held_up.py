"""Users whose end is held up at the target by somebody else there: they hold up nobody."""

from __future__ import annotations

import asyncpg
import pytest

from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import MOUNT, creds, ready, role, target
from tests.gateway.kv import ok
from tests.gateway.test_database import ENDED

__all__ = ["ready", "target"]  # the fixtures


async def test_a_lock_of_others_holds_up_one_user_only(ready: Node, target: TargetDatabase) -> None:
    """Whose table is locked stays until it is free, with the reason; others end, and the target is well."""
    await target.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    held, *free = [(await creds(ready))["data"] for _ in range(4)]
    owner = await asyncpg.connect(target.url_of(held["username"], held["password"]))
    await owner.execute("CREATE TABLE mine ()")
    await owner.close()
    other = await asyncpg.connect(target.admin_url)
    try:
        await other.execute("BEGIN")
        await other.execute("LOCK TABLE mine IN ACCESS SHARE MODE")
        path = f"sys/leases/revoke-prefix/{MOUNT}/creds"
        for _ in range(4):
            answer = await ready.call("PUT", path, json={"sync": True})
            assert (answer.status_code, "1 of " in answer.text) == (503, True), answer.text
        assert await target.users() == {held["username"]}
        assert free
        (row,) = await sql(ready.settings.database_url, "SELECT error FROM leases")
        assert "what others there hold" in row["error"]
        # It has answered, so it is not left alone.
        assert (await ok(ready, "GET", f"{MOUNT}/health/db"))["breaker"] == "closed"
        made = (await creds(ready))["data"]
        assert await target.opens(made["username"], made["password"])
    finally:
        await other.close()

    async def ended() -> bool:
        return await target.users() == {made["username"]}

    await until(ended)
    await ledger_is_good(ready, state=True)


async def test_who_owns_too_much_holds_up_nobody(ready: Node, target: TargetDatabase) -> None:
    """A user that owns more than one transaction can lock is shut out and told of; the others end."""
    await target.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    await ok(ready, "POST", f"{MOUNT}/roles/app", role(owned_objects="drop"))
    greedy, *_ = [(await creds(ready))["data"] for _ in range(3)]
    owner = await asyncpg.connect(target.url_of(greedy["username"], greedy["password"]))
    await owner.execute(
        """DO $$ BEGIN FOR i IN 1..30000 LOOP
               EXECUTE format('CREATE FUNCTION f%s() RETURNS int LANGUAGE sql AS $f$SELECT 1$f$', i);
           END LOOP; END $$"""
    )
    await owner.close()
    for _ in range(4):
        answer = await ready.call("PUT", f"sys/leases/revoke-prefix/{MOUNT}/creds", json={"sync": True})
        assert (answer.status_code, "memory" in answer.text) == (503, True), answer.text
    assert await target.users() == {greedy["username"]}
    assert not await target.opens(greedy["username"], greedy["password"])
    assert (await ok(ready, "GET", f"{MOUNT}/health/db"))["breaker"] == "closed"
    await target.sql(f'REASSIGN OWNED BY "{greedy["username"]}" TO CURRENT_USER')


async def test_a_statement_that_waits_says_nothing_of_the_target(ready: Node, target: TargetDatabase) -> None:
    """A role whose statements wait for what others hold is refused; other roles go on."""
    await target.sql("CREATE TABLE busy ()")
    body = {
        "db_name": "db",
        "creation_statements": [
            "SET LOCAL lock_timeout = 1",
            "LOCK TABLE busy",
            "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'",
        ],
    }
    await ok(ready, "POST", f"{MOUNT}/roles/waiting", body)
    other = await asyncpg.connect(target.admin_url)
    try:
        await other.execute("BEGIN; LOCK TABLE busy")
        for _ in range(4):
            answer = await ready.call("GET", f"{MOUNT}/creds/waiting")
            assert (answer.status_code, "what others there hold" in answer.text) == (503, True), answer.text
        await creds(ready)
    finally:
        await other.close()
    assert (await ready.call("GET", f"{MOUNT}/creds/waiting")).status_code == 200


async def test_no_user_can_keep_others_from_being_made_and_ended(ready: Node, target: TargetDatabase) -> None:
    """Whoever takes the lock by which we take turns there stops neither others nor his own end."""
    taker = (await creds(ready))["data"]
    session = await asyncpg.connect(target.url_of(taker["username"], taker["password"]))
    await session.execute("SELECT pg_advisory_lock(7305086391846017)")
    made = (await creds(ready))["data"]
    assert await target.opens(made["username"], made["password"])
    path = f"sys/leases/revoke-prefix/{MOUNT}/creds"
    answer = await ready.call("PUT", path, json={"sync": True})
    assert answer.json()["data"] == {"leases": 2}
    assert await target.users() == set()
    with pytest.raises(ENDED):
        await session.fetchval("SELECT 1")
