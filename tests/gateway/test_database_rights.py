"""Users that we make gain no rights from what we do at their database, nor from what they leave there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import creds, leasing, ready, target
from tests.gateway.kv import ok

__all__ = ["leasing", "ready", "target"]  # the fixtures


@contextlib.asynccontextmanager
async def session(target: TargetDatabase, made: dict[str, Any]) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A session of a user that was made."""
    connection = await asyncpg.connect(target.url_of(made["data"]["username"], made["data"]["password"]))
    try:
        yield connection
    finally:
        connection.terminate()


async def end(node: Node, made: dict[str, Any]) -> None:
    """Have a user ended."""
    await ok(node, "PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})


@pytest.mark.parametrize("types", ["integer, text", "integer, double precision", "integer, integer"])
async def test_functions_of_users_are_not_called_by_us(
    ready: Node, target: TargetDatabase, types: str
) -> None:
    """A function that is named as one we call, and fits better, is not run with our rights."""
    await target.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    await target.sql("CREATE TABLE called (by text)")
    await target.sql("GRANT ALL ON called TO PUBLIC")
    attacker, other = await creds(ready), await creds(ready)
    async with session(target, attacker) as connection:
        await connection.execute(
            f"""CREATE FUNCTION public.pg_terminate_backend({types}) RETURNS boolean LANGUAGE plpgsql
                AS $$ BEGIN INSERT INTO public.called VALUES (current_user); RETURN true; END $$"""
        )
    async with session(target, other) as connection:
        await end(ready, other)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.fetchval("SELECT 1")
    assert await target.sql("SELECT * FROM called") == []
