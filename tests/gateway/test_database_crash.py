"""The database engine killed at the worst moments: no user is left over, and nobody is locked out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest

from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings
from tests.gateway.database_target import CANARY, TargetDatabase
from tests.gateway.databases import MOUNT, creds, ready, role, target
from tests.gateway.kv import ok
from tests.gateway.pair import healthy
from tests.gateway.second_process import Second, started

__all__ = ["ready", "target"]  # the fixtures


@pytest.fixture
async def doomed(ready: Node, tmp_path: Path) -> AsyncIterator[Second]:
    """A second process of the cluster."""
    key = Path(ready.settings.cluster_key_file).read_text()
    settings = node_settings(tmp_path, ready.settings.database_url, "n2", key)
    settings = msgspec.structs.replace(settings, outbound_networks=("127.0.0.1/32",))
    async with started(settings, ready.tree.handles) as process:
        await until(lambda: healthy(process))
        yield process


async def killed(ready: Node, doomed: Second, target: TargetDatabase, path: str, *, lost: bool) -> None:
    """Ask the second process for something; kill it once the target has that, or it was lost on the way."""
    target.proxy.set(b"PASSWORD 'SCRAM", lost=lost)
    asking = asyncio.create_task(doomed.call("POST", f"{MOUNT}/{path}", ready.root))
    await target.proxy.sprung.wait()
    doomed.kill()
    with pytest.raises(httpx2.HTTPError):
        await asking
    target.proxy.cut()
    # Its claims end by themselves.
    await sql(ready.settings.database_url, "DELETE FROM locks WHERE name LIKE 'engine/%'")


@pytest.mark.parametrize("lost", [False, True])
async def test_a_user_that_was_not_answered_is_gone(
    ready: Node, doomed: Second, target: TargetDatabase, *, lost: bool
) -> None:
    """Killed while the target makes a user, or has made it: it has an intent, is no stray, and is undone."""
    await killed(ready, doomed, target, "creds/app", lost=lost)
    assert len(await sql(ready.settings.database_url, "SELECT id FROM leases WHERE state = 'intent'")) == 1

    async def settled() -> bool:
        return len(await target.users()) == (0 if lost else 1)

    await until(settled)
    assert (await ok(ready, "GET", f"{MOUNT}/strays/db"))["strays"] == []
    await sql(ready.settings.database_url, "UPDATE leases SET due_at = clock_timestamp()")

    async def undone() -> bool:
        return not await sql(ready.settings.database_url, "SELECT id FROM leases")

    await until(undone)
    assert await target.users() == set()
    await ledger_is_good(ready, state=True)


async def test_a_creation_without_an_answer_is_rolled_back_as_the_role_says(
    ready: Node, target: TargetDatabase
) -> None:
    """The target has made a user and nobody heard of it: rollback statements run, those of an end do not."""
    await target.sql("CREATE TABLE log (line text)")
    own = {
        "rollback_statements": ["INSERT INTO log VALUES ('rollback {{name}}')"],
        "revocation_statements": ["INSERT INTO log VALUES ('end {{name}}')"],
    }
    await ok(ready, "POST", f"{MOUNT}/roles/app", role(**own))
    target.proxy.set(b"PASSWORD 'SCRAM", lost=False)
    asking = asyncio.create_task(ready.call("GET", f"{MOUNT}/creds/app"))
    await target.proxy.sprung.wait()

    async def made() -> set[str]:
        return await target.users()

    (user,) = await until(made)
    target.proxy.cut()
    assert (await asking).status_code == 503
    await sql(ready.settings.database_url, "UPDATE leases SET due_at = clock_timestamp()")

    async def undone() -> bool:
        return not await sql(ready.settings.database_url, "SELECT id FROM leases")

    await until(undone)
    assert await target.users() == set()
    assert [row["line"] for row in await target.sql("SELECT line FROM log")] == [f"rollback {user}"]
    await ledger_is_good(ready, state=True)


@pytest.mark.parametrize("lost", [False, True])
async def test_nobody_is_locked_out(
    ready: Node, doomed: Second, target: TargetDatabase, *, lost: bool
) -> None:
    """Killed while our password is replaced, before or after the target has it: we still get in."""
    await killed(ready, doomed, target, "rotate-root/db", lost=lost)

    async def decided() -> bool:
        return await target.opens(target.owner, CANARY) == lost

    await until(decided)
    await creds(ready)
    await ok(ready, "POST", f"{MOUNT}/config/db", {"max_open_connections": 2})
    await creds(ready)
    await ok(ready, "POST", f"{MOUNT}/rotate-root/db")
    assert not await target.opens(target.owner, CANARY)
    await creds(ready)


async def test_a_static_password_is_told_as_it_is(
    ready: Node, doomed: Second, target: TargetDatabase
) -> None:
    """Killed after the target has a static role's new password: that one is told, and then the only one."""
    user = f"{target.owner}_static"
    await target.sql(f"CREATE ROLE {user} LOGIN")
    try:
        body = {"db_name": "db", "username": user, "rotation_period": "24h"}
        await ok(ready, "POST", f"{MOUNT}/static-roles/static", body)
        before = (await ok(ready, "GET", f"{MOUNT}/static-creds/static"))["password"]
        await killed(ready, doomed, target, "rotate-role/static", lost=False)

        async def replaced() -> bool:
            return not await target.opens(user, before)

        await until(replaced)
        now = (await ok(ready, "GET", f"{MOUNT}/static-creds/static"))["password"]
        assert await target.opens(user, now)
        await ok(ready, "POST", f"{MOUNT}/rotate-role/static")
        last = (await ok(ready, "GET", f"{MOUNT}/static-creds/static"))["password"]
        assert await target.opens(user, last)
        assert not await target.opens(user, now)
    finally:
        await target.sql(f"DROP ROLE {user}")
