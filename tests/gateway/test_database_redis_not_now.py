"""A Redis that is there and does not do what it is asked for: it runs a script, or cannot keep a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from tests.gateway import redis_target
from tests.gateway.behind import sql, until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok
from tests.gateway.redis_target import CANARY, TargetRedis
from tests.gateway.test_database_redis import MOUNT, creds, leasing, ready

__all__ = ["leasing", "ready"]  # the fixtures


@pytest.fixture
def target(tmp_path: Path) -> Iterator[TargetRedis]:
    """A server that soon says so when a script keeps it busy, and whose user ``app`` may run some."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_target.running(folder, "--busy-reply-threshold", "20") as started:
        started.client().execute_command("ACL", "SETUSER", "app", "+@all", "~*")
        yield started


@asynccontextmanager
async def busy(target: TargetRedis) -> AsyncIterator[None]:
    """Have the server run a script that does not end by itself."""
    app = target.client("app", "first")
    running = asyncio.create_task(asyncio.to_thread(app.eval, "while true do end", 0))

    async def refuses() -> bool:
        try:
            await asyncio.to_thread(target.client().acl_users)
        except redis.ResponseError as exc:
            return str(exc).startswith("BUSY")
        return False

    await until(refuses)
    try:
        yield
    finally:
        target.client("app", "first").script_kill()
        with pytest.raises(redis.ResponseError):
            await running


async def test_a_server_that_runs_a_script_is_tried_again(ready: Node, target: TargetRedis) -> None:
    """Nothing is made or ended meanwhile, and nobody is told that he asked for something wrong."""
    ended = await creds(ready)
    async with busy(target):
        answer = await ready.call("GET", f"{MOUNT}/creds/app")
        assert (answer.status_code, "BUSY" in answer.text) == (503, True), answer.text
        await ready.call("PUT", "sys/leases/revoke", json={"lease_id": ended["lease_id"]})
        await until(
            lambda: sql(ready.settings.database_url, "SELECT 1 FROM leases WHERE error LIKE '%BUSY%'")
        )
        health = await ok(ready, "POST", f"{MOUNT}/health/cache")
        # It answers, so it is asked again as soon as somebody needs it.
        assert (health["healthy"], health["breaker"]) == (False, "closed")

    async def all_gone() -> bool:
        return not target.made()

    await until(all_gone)
    await creds(ready)


@pytest.mark.parametrize("ours", [True, False])
async def test_a_password_that_is_not_kept_is_not_forgotten(
    ready: Node, target: TargetRedis, ours: bool
) -> None:
    """Where Redis takes a new password and cannot save it, nobody is locked out: both stay known."""
    static = {"db_name": "cache", "username": "app", "rotation_period": "24h"}
    await ok(ready, "POST", f"{MOUNT}/static-roles/app", static)
    first = (await ok(ready, "GET", f"{MOUNT}/static-creds/app"))["password"]
    target.folder.rename(elsewhere := target.folder.with_name("elsewhere"))
    answer = await ready.call("POST", f"{MOUNT}/" + ("rotate-root/cache" if ours else "rotate-role/app"))
    assert answer.status_code == 503, answer.text
    assert not target.opens(*(("secrethub", CANARY) if ours else ("app", first)))
    elsewhere.rename(target.folder)
    await creds(ready)
    second = (await ok(ready, "GET", f"{MOUNT}/static-creds/app"))["password"]
    assert target.opens("app", second)
    assert (second == first) == ours
