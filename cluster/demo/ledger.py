"""What an administrator with SQL can do to the audit ledger, and what verification says of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from cluster.demo.steps import DemoFailed
from secrethub.client import Client


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One entry of the ledger, and who it named before it was changed."""

    stream: str
    number: int
    path: str
    actor: str


def verify(client: Client) -> dict[str, Any]:
    """Let Core verify its whole ledger."""
    return dict(client.write("sys/audit/verify").data)


def tamper(database_url: str, path: str) -> Row:
    """Change, by SQL, who is said to have read ``path`` last."""
    return asyncio.run(_tamper(database_url, path))


def mend(database_url: str, row: Row) -> None:
    """Put back what was changed."""
    asyncio.run(_set_actor(database_url, row, row.actor))


async def _tamper(database_url: str, path: str) -> Row:
    import asyncpg

    connection = await asyncpg.connect(database_url)
    try:
        found = await connection.fetchrow(
            "SELECT stream, number, path, actor FROM audit_entries "
            "WHERE kind = 'request' AND path LIKE '%' || $1 ORDER BY at DESC LIMIT 1",
            path,
        )
    finally:
        await connection.close()
    if found is None:
        raise DemoFailed(f"the ledger has no entry for {path}")
    row = Row(**dict(found))
    await _set_actor(database_url, row, "somebody else")
    return row


async def _set_actor(database_url: str, row: Row, actor: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "UPDATE audit_entries SET actor = $3 WHERE stream = $1 AND number = $2",
            row.stream,
            row.number,
            actor,
        )
    finally:
        await connection.close()
