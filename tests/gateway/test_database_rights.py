"""Users that we make gain no rights from what we do at their database, nor from what they leave there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.gateway.behind import until
from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import MOUNT, creds, ready, role, target
from tests.gateway.kv import ok

__all__ = ["ready", "target"]  # the fixtures


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


async def weakened(target: TargetDatabase, *, superuser: bool) -> None:
    """Let users make objects, and leave the connection's user no more rights than it needs."""
    await target.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    await target.sql(f"GRANT SELECT ON things TO {target.owner} WITH GRANT OPTION")
    if not superuser:
        await target.sql(f"ALTER ROLE {target.owner} NOSUPERUSER CREATEROLE")


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


_LEFT = """CREATE TABLE {0}_rows AS SELECT 1 AS one;
    CREATE VIEW {0}_view AS SELECT rolpassword FROM pg_authid;
    CREATE FUNCTION {0}_run(what text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
        AS $$ BEGIN EXECUTE what; END $$;
    GRANT SELECT ON {0}_rows, {0}_view TO PUBLIC"""


@pytest.mark.parametrize("superuser", [True, False])
async def test_what_users_leave_has_no_rights(
    ready: Node, target: TargetDatabase, *, superuser: bool
) -> None:
    """Views and functions of a user that has ended show and do nothing of ours or of other roles' users."""
    await weakened(target, superuser=superuser)
    await ok(ready, "POST", f"{MOUNT}/roles/other", role())
    for name in ("app", "other"):
        made = await creds(ready, name=name)
        async with session(target, made) as connection:
            await connection.execute(_LEFT.format(name))
        await end(ready, made)
    async with session(target, await creds(ready)) as connection:
        assert await connection.fetchval("SELECT one FROM app_rows") == 1
        user = await connection.fetchval("SELECT current_user")
        for statement in (
            "SELECT * FROM app_view",
            f"SELECT app_run('ALTER ROLE \"{user}\" CREATEDB')",
            "SELECT app_run('DROP TABLE things')",
            "SELECT app_run('DROP TABLE other_rows')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.execute("SELECT app_run('DROP TABLE app_rows')")
    assert len(await target.owners()) == 2


async def test_a_role_with_rights_gets_nothing(ready: Node, target: TargetDatabase) -> None:
    """Where the role that is to own what is left can do something, the user's end waits, with the reason."""
    await target.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    for mighty in (True, False):
        made = await creds(ready)
        async with session(target, made) as connection:
            await connection.execute(_LEFT.format(f"left_{mighty}".lower()))
        if mighty:
            await end(ready, made)
            (owner,) = await target.owners()
            await target.sql(f'ALTER ROLE "{owner}" CREATEDB')
    body = {"lease_id": made["lease_id"], "sync": True}
    refused = await ready.call("PUT", "sys/leases/revoke", json=body)
    assert (refused.status_code, "must not be able" in refused.text) == (503, True), refused.text
    await target.sql(f'ALTER ROLE "{owner}" NOCREATEDB')

    async def ended() -> bool:
        return not await target.users()

    await until(ended)


@pytest.mark.parametrize("superuser", [True, False])
async def test_who_cannot_be_dropped_cannot_log_in(
    ready: Node, target: TargetDatabase, *, superuser: bool
) -> None:
    """A user whose end fails at something that others made of his is shut out until it succeeds."""
    await weakened(target, superuser=superuser)
    await ok(ready, "POST", f"{MOUNT}/roles/app", role(owned_objects="drop"))
    revoked, other = await creds(ready), await creds(ready)
    async with session(target, revoked) as connection:
        await connection.execute("CREATE TABLE mine AS SELECT 1 AS one; GRANT SELECT ON mine TO PUBLIC")
        async with session(target, other) as second:
            await second.execute("CREATE VIEW his AS SELECT * FROM mine")
        body = {"lease_id": revoked["lease_id"], "sync": True}
        answer = await ready.call("PUT", "sys/leases/revoke", json=body)
        assert (answer.status_code, "depend" in answer.text) == (503, True), answer.text
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.fetchval("SELECT 1")
    assert revoked["data"]["username"] in await target.users()
    assert not await target.opens(revoked["data"]["username"], revoked["data"]["password"])
    assert await target.opens(other["data"]["username"], other["data"]["password"])
    await end(ready, other)

    async def ended() -> bool:
        return not await target.users()

    await until(ended)
