"""Two serving processes on one database: what one commits, the other goes by from its next answer on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import asyncpg

from secrethub.storage.freshness import LOCK
from tests.gateway.behind import ledger_is_good, reasons, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.pair import healthy, second
from tests.gateway.second_process import Second

__all__ = ["second"]  # the fixture

_ANSWER_OLD = 1.0
"""Seconds after which an answer that has not left is decided again."""


@contextlib.asynccontextmanager
async def ledger_held(url: str) -> AsyncIterator[None]:
    """Let no audit entry of any process become durable."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        yield
    finally:
        await connection.close()


async def waiting(url: str, mode: str, count: int = 1) -> None:
    """Wait until so many transactions stand in line for the freshness lock in this mode."""

    async def stands() -> bool:
        found = await sql(
            url,
            """SELECT count(*) AS n FROM pg_locks
               WHERE locktype = 'advisory' AND NOT granted AND mode = $1
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
            mode,
        )
        return bool(found[0]["n"] >= count)

    await until(stands)


async def test_a_revoked_token_ends_in_both(node: Node, second: Second) -> None:
    """A token revoked through one process never reads through the other once that was answered."""
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    for _ in range(10):
        token = await node.token("reader", native("secrets/a"))
        assert (await second.call("GET", "secrets/a", token)).status_code == 200
        assert (await node.call("POST", "auth/token/revoke-self", token)).status_code == 204
        assert (await second.call("GET", "secrets/a", token)).status_code == 403
    assert "unknown token" in await reasons(node.settings.database_url, operation="kv.read")
    await ledger_is_good(node)


async def test_children_end_in_both(node: Node, second: Second) -> None:
    """What was made from a token ends with it, in every process."""
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    parent = await node.token(
        "maker",
        {
            "path": {
                "secret/data/a": {"capabilities": ["read"]},
                "auth/token/create": {"capabilities": ["update"]},
            }
        },
    )
    made = await second.call("POST", "auth/token/create", parent, json={"policies": ["maker"]})
    child = made.json()["auth"]["client_token"]
    assert (await second.call("GET", "secrets/a", child)).status_code == 200
    assert (await node.call("POST", "auth/token/revoke-self", parent)).status_code == 204
    assert (await second.call("GET", "secrets/a", child)).status_code == 403


async def test_a_policy_decides_at_once_in_both(node: Node, second: Second) -> None:
    """A policy written through one process decides the other's next request, wider or narrower."""
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    token = await node.token("app", native("secrets/other"))
    for wide in (True, False) * 5:
        policy = native("secrets/a" if wide else "secrets/other")
        await node.call("PUT", "sys/policies/acl/app", json={"policy": policy})
        answer = await second.call("GET", "secrets/a", token)
        assert answer.status_code == (200 if wide else 403)


async def test_a_new_mount_answers_in_both(node: Node, second: Second) -> None:
    """A mount enabled through one process answers in the other at once."""
    for number in range(5):
        missing = await second.call("GET", f"team-{number}/data/a", node.root)
        assert missing.status_code == 404
        await node.call("POST", f"sys/mounts/team-{number}", json={"type": "kv", "options": {"version": "2"}})
        written = await second.call("POST", f"team-{number}/data/a", node.root, json={"data": {"n": number}})
        assert written.status_code == 200


async def test_a_removed_mount_answers_in_neither(node: Node, second: Second) -> None:
    """A mount removed through one process is gone in the other at once, and so is what it had cached."""
    for number in range(3):
        await node.call("POST", "sys/mounts/team", json={"type": "kv-v2"})
        written = await node.call("POST", "team/data/a", json={"data": {"n": number}})
        assert written.json()["data"]["version"] == 1
        read = await second.call("GET", "team/data/a", node.root)
        assert read.json()["data"]["data"] == {"n": number}
        assert (await node.call("DELETE", "sys/mounts/team")).status_code == 204
        assert (await second.call("GET", "team/data/a", node.root)).status_code == 404


async def test_a_stopped_process_reads_nothing_for_a_revoked_token(node: Node, second: Second) -> None:
    """Requests sent before, during and after a revocation to a process stopped meanwhile read nothing."""
    url = node.settings.database_url
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    token = await node.token("reader", native("secrets/a"))
    assert (await second.call("GET", "secrets/a", token)).status_code == 200
    async with ledger_held(url):
        before = asyncio.create_task(second.call("GET", "secrets/a", token))
        await waiting(url, "ShareLock")
        second.stop()
        stopped_at = time.monotonic()
    revoked = await node.call("POST", "auth/token/revoke-self", token)
    assert revoked.status_code == 204
    during = [asyncio.create_task(second.call("GET", "secrets/a", token)) for _ in range(4)]
    await asyncio.sleep(max(0.0, stopped_at + _ANSWER_OLD + 0.2 - time.monotonic()))
    second.go_on()
    after = await second.call("GET", "secrets/a", token)
    answers = [await before, *[await task for task in during], after]
    assert [answer.status_code for answer in answers] == [403] * 6
    await ledger_is_good(node)


async def test_a_stopped_process_changes_nothing_for_a_revoked_token(node: Node, second: Second) -> None:
    """A write that a stopped process had begun for a token is refused once the token is revoked."""
    url = node.settings.database_url
    token = await node.token("writer", native("secrets/a", capabilities=("create", "update")))
    async with ledger_held(url):
        write = asyncio.create_task(second.call("POST", "secrets/a", token, json={"data": {"k": "v"}}))
        await waiting(url, "ShareLock")
        second.stop()
    assert (await node.call("POST", "auth/token/revoke-self", token)).status_code == 204
    second.go_on()
    assert (await write).status_code == 403
    assert (await node.call("GET", "secrets/a")).status_code == 404
    outcomes = await sql(
        url, "SELECT kind, outcome FROM audit_entries WHERE operation = 'kv.write' ORDER BY number"
    )
    assert [tuple(row) for row in outcomes] == [("intent", "begun"), ("outcome", "denied")]


async def test_a_process_stopped_amid_a_change_holds_nobody_up_for_long(node: Node, second: Second) -> None:
    """A process that stops while it has the lock of a change loses it; the others go on without it."""
    url = node.settings.database_url
    await node.call("PUT", "sys/policies/acl/app", json={"policy": native("secrets/a")})
    await node.call("POST", "secrets/a", json={"data": {"k": "v"}})
    blocker = await asyncpg.connect(url)
    try:
        await blocker.execute("BEGIN; SELECT * FROM policies WHERE key = 'app' FOR UPDATE")
        change = asyncio.create_task(
            second.call("PUT", "sys/policies/acl/app", node.root, json={"policy": native("secrets/b")})
        )
        await until(
            lambda: sql(url, "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        )
        second.stop()
    finally:
        await blocker.close()
    # PostgreSQL ends the transaction of whoever says nothing for five seconds.
    answer = await node.call("GET", "secrets/a")
    assert answer.status_code == 200
    token = await node.token("app", native("secrets/a"))
    assert (await node.call("GET", "secrets/a", token)).status_code == 200
    second.go_on()
    answer = await change
    assert answer.status_code in {204, 503}
    wide = "secrets/b" if answer.status_code == 204 else "secrets/a"
    policy = (await node.call("GET", "sys/policies/acl/app")).json()["data"]["policy"]
    assert wide in policy
    await ledger_is_good(node)


async def test_what_is_in_flight_while_the_cluster_is_sealed_is_not_answered(
    node: Node, second: Second
) -> None:
    """Reads decided before a seal, in this process and another, are not answered once it is committed."""
    url = node.settings.database_url
    await node.call("POST", "secrets/a", json={"data": {"k": "canary-in-flight"}})
    assert (await second.call("GET", "secrets/a", node.root)).status_code == 200
    async with ledger_held(url):
        sealing = asyncio.create_task(node.tree.handles.seal_state().call("seal", timeout=30))
        await waiting(url, "ExclusiveLock")
        reads = [
            asyncio.create_task(node.call("GET", "secrets/a")),
            asyncio.create_task(second.call("GET", "secrets/a", node.root)),
        ]
        await waiting(url, "ShareLock", 2)
    await sealing
    for read in reads:
        answer = await read
        assert answer.status_code == 503
        assert "canary" not in answer.text
    assert (await second.call("GET", "secrets/a", node.root)).status_code == 503
    await node.unseal()
    await until(lambda: healthy(second))
    assert (await second.call("GET", "secrets/a", node.root)).status_code == 200
    await ledger_is_good(node)


async def test_a_process_stopped_while_the_cluster_is_sealed_answers_nothing(
    node: Node, second: Second
) -> None:
    """A process that was stopped during a seal answers nothing afterwards, also what it had begun."""
    url = node.settings.database_url
    await node.call("POST", "secrets/a", json={"data": {"k": "canary-stopped"}})
    assert (await second.call("GET", "secrets/a", node.root)).status_code == 200
    second.stop()
    queued = [asyncio.create_task(second.call("GET", "secrets/a", node.root)) for _ in range(3)]
    assert (await node.call("PUT", "sys/seal")).json()["data"]["unreached"] == ["n2/second"]
    second.go_on()
    for task in queued:
        answer = await task
        assert answer.status_code == 503
        assert "canary" not in answer.text
    sealed = await sql(url, "SELECT sealed FROM cluster")
    assert sealed[0]["sealed"] is True
