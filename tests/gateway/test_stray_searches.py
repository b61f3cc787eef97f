"""Searches for users without a lease: what they find, tell and remove, and whom they leave alone."""

from __future__ import annotations

import asyncio
from typing import Any

from secrethub.engines.database.usernames import cluster_tag
from secrethub.engines.database.without_lease import without_lease
from secrethub.storage import stray_checks
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.database_target import CANARY, TargetDatabase
from tests.gateway.databases import MOUNT, creds, ready, target
from tests.gateway.kv import ok
from tests.gateway.stray_searches import due, searched

__all__ = ["ready", "target"]  # the fixtures


async def _health(node: Node) -> Any:
    return (await ok(node, "GET", f"{MOUNT}/health/db"))["strays"]


async def test_a_user_whose_lease_was_deleted_is_told_of(ready: Node, target: TargetDatabase) -> None:
    """Somebody deletes a lease's row: the user is in health, metrics and ledger, and nothing is removed."""
    kept, lost = await creds(ready), await creds(ready)
    names = [one["data"]["username"] for one in (kept, lost)]
    await sql(ready.settings.database_url, "DELETE FROM leases WHERE id = $1", lost["lease_id"])
    assert await searched(ready) == (1, [names[1]])
    assert await target.users() == set(names)
    told = await _health(ready)
    assert (told["found"], told["names"], told["error"]) == (1, [names[1]], "")
    (entry,) = await entries(ready.settings.database_url, operation="strays.search")
    assert (entry["outcome"], entry["actor"]) == ("found", "system")
    assert (entry["path"], entry["detail"]["names"]) == (f"{MOUNT}/strays/db", [names[1]])

    async def counted() -> bool:
        lines = (await ready.call("GET", "sys/metrics")).text.splitlines()
        found = [line for line in lines if line.startswith("secrethub_strays{")]
        return [line.endswith(" 1.0") and 'target="db"' in line for line in found] == [True]

    await until(counted)
    await ledger_is_good(ready)


async def test_strays_are_removed_where_that_is_configured(ready: Node, target: TargetDatabase) -> None:
    """Users of this cluster without a lease go; those with one and those of another cluster stay."""
    name = (await creds(ready))["data"]["username"]
    tag = cluster_tag(ready.process.core.keys.cluster_id)
    stray, theirs = f"v-x-{tag}-{'A' * 24}", f"v-x-{'0' * 12}-{'A' * 24}"
    for user in (stray, theirs):
        await target.sql(f'CREATE ROLE "{user}" LOGIN')
    await ok(ready, "POST", f"{MOUNT}/config/db", target.config(remove_strays=True))
    assert await searched(ready) == (0, [])
    assert await target.users() == {name, theirs}
    told = await entries(ready.settings.database_url, operation="strays.search")
    assert [(entry["outcome"], entry["detail"]["names"]) for entry in told] == [
        ("begun", [stray]),
        ("removed", [stray]),
    ]
    await ledger_is_good(ready, state=True)


async def test_a_target_that_is_away_is_searched_once_it_is_back(ready: Node, target: TargetDatabase) -> None:
    """That it could not be searched is told, without a secret, and is no result; it is tried again later."""
    url = ready.settings.database_url
    assert await searched(ready) == (0, [])
    await target.go_away()
    await due(ready)
    (row,) = await until(lambda: sql(url, "SELECT *, now() AS now FROM stray_checks WHERE error <> ''"))
    assert row["checked_at"] is None
    assert row["not_before"] > row["now"]
    told = await _health(ready)
    assert told["error"]
    assert CANARY not in str(told)
    await target.come_back()
    # Nobody has to wait for the breaker.
    await ok(ready, "POST", f"{MOUNT}/health/db")
    assert await searched(ready) == (0, [])
    assert (await _health(ready))["error"] == ""


async def test_intervals_are_kept_within_bounds(ready: Node, target: TargetDatabase) -> None:
    """None at all, or a minute at least; what is written is read, and stays if it is not written."""
    config = target.config
    refused = await ready.call("POST", f"{MOUNT}/config/db", json=config(stray_check="59s"))
    assert (refused.status_code, "stray_check" in refused.text) == (400, True)
    await ok(ready, "POST", f"{MOUNT}/config/db", config(stray_check="0", remove_strays=True))
    await ok(ready, "POST", f"{MOUNT}/config/db", config())
    found = (await ok(ready, "GET", f"{MOUNT}/config/db"))["connection_details"]
    assert (found["stray_check"], found["remove_strays"]) == (0, True)


async def test_one_process_searches_a_target_and_another_after_a_crash(leasing: Node) -> None:
    """A claim is one process's until it runs out; what was searched is due once its interval is over."""
    database, url = leasing.process.core.database, leasing.settings.database_url
    # No manager of this node looks.
    await leasing.tree.workplace.take_back()
    await stray_checks.enter(database, ["a"])
    await sql(url, "UPDATE stray_checks SET not_before = now()")
    wanted = {"a": 3600.0, "b": 3600.0}
    claims = await asyncio.gather(*(stray_checks.claim(database, wanted) for _ in range(4)))
    assert sorted(claims, key=str) == [None, None, None, "a"]
    await sql(url, "UPDATE stray_checks SET not_before = now()")
    assert await stray_checks.claim(database, wanted) == "a"
    await stray_checks.done(database, "a", ["x"])
    assert await stray_checks.claim(database, wanted) is None
    await sql(url, "UPDATE stray_checks SET checked_at = now() - interval '70 minutes'")
    assert await stray_checks.claim(database, {}) is None
    assert await stray_checks.claim(database, wanted) == "a"
    await stray_checks.enter(database, [])
    assert await sql(url, "SELECT key FROM stray_checks") == []


async def test_a_user_that_ends_meanwhile_is_no_stray(ready: Node, target: TargetDatabase) -> None:
    """A lease that ends between the look at the target and the one at the leases leaves no stray behind."""
    made = await creds(ready)
    looks = 0

    async def users() -> list[str]:
        nonlocal looks
        looks += 1
        found = sorted(await target.users())
        if looks == 1:
            done = await ready.call(
                "PUT", "sys/leases/revoke", json={"lease_id": made["lease_id"], "sync": True}
            )
            assert done.status_code == 204, done.text
        return found

    assert await without_lease(ready.process.core, users) == {}
    assert looks == 2
