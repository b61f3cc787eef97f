"""What a database writer does behind Core's back, and what the ledger and metrics say of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from secrethub.storage.ledger import Note
from tests.gateway.conftest import Caller, Node
from tests.triggers import add_trigger

T = TypeVar("T")


OURS = "current_setting('application_name') LIKE 'secrethub %'"
"""Condition: a statement of a node, and not of a test."""


async def sql(url: str, statement: str, *values: Any) -> list[Any]:
    """Run a statement on the database and return its rows."""
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


async def mount_id(url: str, path: str = "auth/approle/") -> str:
    """Return the UUID of what is mounted at a path."""
    found = await sql(url, "SELECT body->>'uuid' AS uuid FROM mounts WHERE key = $1", path)
    return str(found[0]["uuid"])


async def holes(node: Node) -> set[str]:
    """Return which tokens' cubbyholes have anything, wrapped answers among it."""
    return {row["key"] for row in await sql(node.settings.database_url, "SELECT key FROM cubbyholes")}


@asynccontextmanager
async def refusing(url: str, event: str, when: str = "true") -> AsyncIterator[None]:
    """Let the database refuse statements, such as ``INSERT ON certificates``, as if it were shutting down.

    ``when`` is a condition, as of a trigger.
    """
    holder = await asyncpg.connect(url)
    try:
        await add_trigger(
            holder,
            event,
            """IF NOT pg_try_advisory_xact_lock_shared({lock}) THEN
                   RAISE 'refused by a test' USING ERRCODE = 'cannot_connect_now';
               END IF;""",
            when,
        )
        yield
    finally:
        await holder.close()


async def fill_ledger(node: Node, count: int, detail: str = "{}", actor: str = "token:x:filler") -> None:
    """Write entries of requests, many at once, without making the requests."""
    note = Note(
        kind="request",
        request_id="",
        actor=actor,
        operation="kv.read",
        path="secret/data/filler",
        outcome="done",
        detail=detail,
    )
    await asyncio.gather(*(node.process.core.ledger.append(note) for _ in range(count)))


async def until(condition: Callable[[], Awaitable[T]], seconds: float = 30.0, *, patient: bool = True) -> T:
    """Return the first result of ``condition`` that is true.

    Asking costs a connection to the database or a request, so what takes more than a second is asked for less
    often, unless it must be found before it is over (``patient=False``).
    """
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while True:
            result = await condition()
            if result:
                return result
            await asyncio.sleep(0.1 if patient and time.monotonic() - started > 1 else 0.02)


async def entries(url: str, **fields: str) -> list[dict[str, Any]]:
    """Return the ledger's entries with these fields, oldest first; ``detail`` decoded."""
    conditions = [f"{name} = ${place}" for place, name in enumerate(fields, 1)]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    found = await sql(
        url, f"SELECT * FROM audit_entries {where} ORDER BY at, stream, number", *fields.values()
    )
    return [{**dict(row), "detail": json.loads(row["detail"])} for row in found]


async def reasons(url: str, **fields: str) -> list[str]:
    """Return the reasons in the ledger's entries with these fields."""
    return [entry["reason"] for entry in await entries(url, **fields) if entry["reason"]]


async def integrity_failures(node: Node) -> dict[str, float]:
    """Return what ``secrethub_integrity_failures`` counts, by table."""
    text = (await node.call("GET", "sys/metrics")).text
    counted: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("secrethub_integrity_failures_total{"):
            table = line.partition('table="')[2].partition('"')[0]
            counted[table] = counted.get(table, 0) + float(line.rpartition(" ")[2])
    return counted


async def ledger_is_good(node: Caller, *, state: bool = False) -> dict[str, Any]:
    """Check that the whole ledger verifies, with ``state`` the rows it speaks of too; return the verdict."""
    answer = await node.call("POST", "sys/audit/verify", json={"state": state})
    verdict: dict[str, Any] = answer.json()["data"]
    assert verdict["ok"], verdict
    return verdict
