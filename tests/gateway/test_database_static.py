"""Passwords of the database engine that are replaced: our own, and those of static roles; and strays."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import hvac

from secrethub.engines.database.usernames import cluster_tag
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.database_target import CANARY, TargetDatabase
from tests.gateway.databases import MOUNT, creds, ready, target
from tests.gateway.kv import ok
from tests.gateway.test_hvac import with_client

__all__ = ["ready", "target"]  # the fixtures


async def test_our_own_password_is_replaced(ready: Node, target: TargetDatabase) -> None:
    """After a rotation nobody outside knows the password, everything goes on, and so does a second one."""
    made = await creds(ready)
    for _ in range(2):
        await with_client(ready, lambda client: client.secrets.database.rotate_root_credentials("db", MOUNT))
        assert not await target.opens(target.owner, CANARY)
        await creds(ready)
    assert (await ready.call("POST", f"{MOUNT}/rotate-root/none")).status_code == 404
    await ok(ready, "POST", f"{MOUNT}/config/db", {"max_open_connections": 2})
    await ok(ready, "PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
    broken = {"root_rotation_statements": ["ALTER ROLE nobody_of_this_name PASSWORD '{{password}}'"]}
    await ok(ready, "POST", f"{MOUNT}/config/db", broken)
    refused = await ready.call("POST", f"{MOUNT}/rotate-root/db")
    assert (refused.status_code, "nobody_of_this_name" in refused.text) == (400, True)
    await ok(ready, "POST", f"{MOUNT}/config/db", {"root_rotation_statements": ["SELECT '{{password}}'"]})
    refused = await ready.call("POST", f"{MOUNT}/rotate-root/db")
    assert (refused.status_code, "did not take" in refused.text) == (400, True)
    await creds(ready)
    await ledger_is_good(ready, state=True)


async def _static(node: Node, target: TargetDatabase, name: str = "billing", **more: Any) -> Any:
    user = f"{target.owner}_{name}"
    await target.sql(f"CREATE ROLE {user} LOGIN PASSWORD 'first'")
    body = {"db_name": "db", "username": user, "rotation_period": "24h", **more}
    answer = await node.call("POST", f"{MOUNT}/static-roles/{name}", json=body)
    return user, answer


async def test_hvac_drives_static_roles(ready: Node, target: TargetDatabase) -> None:
    """A user's password becomes ours at once, is read and replaced on demand, and is nowhere in clear."""
    user, _ = await _static(ready, target)
    try:

        def drive(client: hvac.Client) -> tuple[str, str]:
            database = client.secrets.database
            assert database.list_static_roles(mount_point=MOUNT)["data"]["keys"] == ["billing"]
            database.create_static_role("billing", "db", user, [], "24h", mount_point=MOUNT)
            role = database.read_static_role("billing", mount_point=MOUNT)["data"]
            assert (role["username"], role["rotation_period"]) == (user, 86400)
            first = database.get_static_credentials("billing", mount_point=MOUNT)["data"]
            assert first["username"] == user
            assert 86390 <= first["ttl"] <= 86400
            database.rotate_static_role_credentials("billing", mount_point=MOUNT)
            second = database.get_static_credentials("billing", mount_point=MOUNT)["data"]
            assert second["last_vault_rotation"] > first["last_vault_rotation"]
            return first["password"], second["password"]

        first, second = await with_client(ready, drive)
        for password, good in (("first", False), (first, False), (second, True)):
            assert await target.opens(user, password) == good
        token = await ready.token("billing", native(f"{MOUNT}/static-creds/billing"))
        assert (await ready.call("GET", f"{MOUNT}/static-creds/billing", token)).status_code == 200
        assert (await ready.call("POST", f"{MOUNT}/rotate-role/billing", token)).status_code == 403
        rows = await sql(ready.settings.database_url, "SELECT t::text AS row FROM engine_roles t")
        assert second not in str(rows)
        assert second not in str(await entries(ready.settings.database_url))
        await with_client(
            ready, lambda client: client.secrets.database.delete_static_role("billing", mount_point=MOUNT)
        )
        assert (await ready.call("GET", f"{MOUNT}/static-roles/billing")).status_code == 404
        assert await target.opens(user, second)
        await ledger_is_good(ready, state=True)
    finally:
        await target.sql(f"DROP ROLE {user}")


async def test_what_cannot_be_a_static_role(ready: Node, target: TargetDatabase) -> None:
    """Nobody takes over the connection's own user, one that another role has, or one that is not there."""
    user, made = await _static(ready, target)
    try:
        assert made.status_code == 204, made.text
        path, good = f"{MOUNT}/static-roles", {"db_name": "db", "username": user, "rotation_period": "1h"}
        for name, body in (
            ("own", {**good, "username": target.owner}),
            ("same", good),
            ("absent", {**good, "username": "nobody_of_this_name"}),
            ("billing", {**good, "username": "other"}),
            ("new", {**good, "rotation_period": "1s"}),
            ("new", {**good, "rotation_schedule": "not a cron"}),
            ("new", {**good, "rotation_statements": "ALTER ROLE {{other}}"}),
            ("new", {"db_name": "none", "username": "u", "rotation_period": "1h"}),
        ):
            refused = await ready.call("POST", f"{path}/{name}", json=body)
            assert refused.status_code == 400, (name, refused.text)
        assert (await ok(ready, "LIST", path))["keys"] == ["billing"]
        assert (await ready.call("GET", f"{MOUNT}/static-creds/absent")).status_code == 404
    finally:
        await target.sql(f"DROP ROLE {user}")


async def test_a_schedule_replaces_passwords(ready: Node, target: TargetDatabase) -> None:
    """What is due is replaced by itself, once the target answers again if it was away."""
    user, made = await _static(ready, target, rotation_schedule="0 3 * * sun", rotation_period=None)
    try:
        assert made.status_code == 204, made.text
        first = await ok(ready, "GET", f"{MOUNT}/static-creds/billing")
        assert first["rotation_schedule"] == "0 3 * * sun"
        await ok(ready, "POST", f"{MOUNT}/static-roles/billing", {"rotation_period": "5s"})
        await target.go_away()

        async def overdue() -> bool:
            return bool(
                await sql(
                    ready.settings.database_url,
                    "SELECT key FROM engine_roles WHERE expires_at < clock_timestamp()",
                )
            )

        await until(overdue)
        assert (await ok(ready, "GET", f"{MOUNT}/static-creds/billing"))["password"] == first["password"]
        await target.come_back()

        async def replaced() -> bool:
            now = await ok(ready, "GET", f"{MOUNT}/static-creds/billing")
            return bool(now["password"] != first["password"])

        await until(replaced)
        assert not await target.opens(user, first["password"])
        url, rotated = ready.settings.database_url, "database.rotate-role"
        done = await until(lambda: entries(url, operation=rotated, outcome="done"))
        assert done[-1]["actor"] == "system"
    finally:

        async def removed() -> bool:
            """It is refused while the password is just being replaced again."""
            answer = await ready.call("DELETE", f"{MOUNT}/static-roles/billing")
            assert answer.status_code == 204 or answer.json()["code"] == "conflict", answer.text
            return answer.status_code == 204

        await until(removed)
        await target.sql(f"DROP ROLE {user}")


async def test_a_cron_schedule_replaces_passwords(ready: Node, target: TargetDatabase) -> None:
    """A password is replaced at the minute that cron says in its zone, and is to be again a day later."""
    zone = ZoneInfo("Asia/Kathmandu")  # 05:45 ahead of UTC, all the year
    due = datetime.now(zone).replace(second=0, microsecond=0) - timedelta(minutes=2)
    # For the node it is before that minute; the database, which says what is due, waits for nothing.
    ready.clock.move(-600)
    cron = {"rotation_schedule": f"{due.minute} {due.hour} * * *", "rotation_zone": zone.key}
    user, made = await _static(ready, target, rotation_period=None, **cron)
    try:
        assert made.status_code == 204, made.text
        first = await ok(ready, "GET", f"{MOUNT}/static-creds/billing")
        ready.clock.move(0)

        async def replaced() -> dict[str, Any] | None:
            now = await ok(ready, "GET", f"{MOUNT}/static-creds/billing")
            return now if now["last_vault_rotation"] != first["last_vault_rotation"] else None

        second = await until(replaced)
        assert second is not None
        before, after = (datetime.fromisoformat(one["last_vault_rotation"]) for one in (first, second))
        assert before < due <= after
        [row] = await sql(
            ready.settings.database_url, "SELECT expires_at FROM engine_roles WHERE key ~ 'billing$'"
        )
        assert row["expires_at"] == due + timedelta(days=1)
        assert second["password"] != first["password"]
        assert await target.opens(user, second["password"])
    finally:
        await target.sql(f"DROP ROLE {user}")


async def test_strays(ready: Node, target: TargetDatabase) -> None:
    """A user of this cluster without a lease is found and removed; nobody else's user is touched."""
    tag, marker = cluster_tag(ready.process.core.keys.cluster_id), "A" * 24
    stray, theirs = f"v-x-{tag}-{marker}", f"v-x-{'0' * 12}-{marker}"
    made = await creds(ready)
    for name in (stray, theirs):
        await target.sql(f'CREATE ROLE "{name}" LOGIN')
    assert await ok(ready, "GET", f"{MOUNT}/strays/db") == {"strays": [stray], "removed": [], "failed": {}}
    reader = await ready.token("reader", native(f"{MOUNT}/strays/*", capabilities=("read", "update")))
    assert (await ready.call("GET", f"{MOUNT}/strays/db", reader)).status_code == 200
    assert (await ready.call("POST", f"{MOUNT}/strays/db", reader)).status_code == 403
    assert (await ok(ready, "POST", f"{MOUNT}/strays/db"))["removed"] == [stray]
    assert await target.users() == {theirs, made["data"]["username"]}
    assert (await ok(ready, "GET", f"{MOUNT}/strays/db"))["strays"] == []
