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
from tests.gateway.test_database_redis import MOUNT, creds, ready

__all__ = ["ready"]  # the fixture


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


WHOSE = pytest.mark.parametrize(
    ("way", "user"), [("rotate-root/cache", "secrethub"), ("rotate-role/app", "app")], ids=["ours", "static"]
)


@pytest.fixture
async def first(ready: Node) -> str:
    """The password of the static role ``app``, that has the user ``app``."""
    static = {"db_name": "cache", "username": "app", "rotation_period": "24h"}
    await ok(ready, "POST", f"{MOUNT}/static-roles/app", static)
    return str((await ok(ready, "GET", f"{MOUNT}/static-creds/app"))["password"])


@WHOSE
async def test_a_password_that_could_not_be_kept_is_not_replaced(
    ready: Node, target: TargetRedis, first: str, way: str, user: str
) -> None:
    """However often it is tried while Redis cannot save, the old one is good, also after a restart."""
    old = CANARY if user == "secrethub" else first
    target.folder.rename(elsewhere := target.folder.with_name("elsewhere"))
    for _ in range(2):
        answer = await ready.call("POST", f"{MOUNT}/{way}")
        assert (answer.status_code, "save the ACLs" in answer.text) == (400, True), answer.text
    elsewhere.rename(target.folder)
    target.stop()
    target.start()
    assert target.opens(user, old)
    await ok(ready, "POST", f"{MOUNT}/{way}")
    assert not target.opens(user, old)
    await creds(ready)


@WHOSE
async def test_a_password_that_was_not_kept_is_not_forgotten(
    ready: Node, target: TargetRedis, first: str, way: str, user: str
) -> None:
    """Where Redis takes a new one and cannot save it any more, nobody is locked out: both stay known."""
    elsewhere = target.folder.with_name("elsewhere")
    saves = 0

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool) -> None:
        nonlocal saves
        while data := await reader.read(65_536):
            if asks and b"SAVE" in data:
                saves += 1
                if saves == 2:
                    target.folder.rename(elsewhere)
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", target.port)
        await asyncio.gather(pass_on(reader, ours, asks=True), pass_on(theirs, writer, asks=False))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await ok(ready, "POST", f"{MOUNT}/config/cache", target.config(port=port))
    assert (await ready.call("POST", f"{MOUNT}/{way}")).status_code == 503
    assert not target.opens(user, CANARY if user == "secrethub" else first)
    elsewhere.rename(target.folder)
    await creds(ready)
    password = (await ok(ready, "GET", f"{MOUNT}/static-creds/app"))["password"]
    assert target.opens("app", password)
    assert (password == first) == (user == "secrethub")
    server.close()
