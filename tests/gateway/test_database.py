"""The database engine: connections, roles, and users that live as long as a lease, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import asyncpg
import hvac
import pytest
from hvac import exceptions

from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node, native
from tests.gateway.database_target import CANARY, TargetDatabase
from tests.gateway.databases import CREATION, MOUNT, creds, ready, role, target
from tests.gateway.kv import ok
from tests.gateway.test_hvac import with_client

ENDED = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What a session notices when it is ended."""

__all__ = ["ready", "target"]  # the fixtures


async def none_left(target: TargetDatabase) -> None:
    """Wait until no user is left."""

    async def none() -> bool:
        return not await target.users()

    await until(none)


async def test_hvac_drives_it_from_configuration_to_revocation(leasing: Node, target: TargetDatabase) -> None:
    """Vault's own client configures ``database/``, gets users that can log in, and takes them back."""

    def configure(client: hvac.Client) -> None:
        client.sys.enable_secrets_engine("database")
        database = client.secrets.database
        config = target.config()
        database.configure(name="db", **config)
        assert database.list_connections()["data"]["keys"] == ["db"]
        read = database.read_connection("db")["data"]
        assert read["connection_details"]["connection_url"] == target.connection_url
        assert read["connection_details"]["username"] == target.owner
        assert "password" not in read["connection_details"]
        database.create_role(
            name="app",
            db_name="db",
            creation_statements=CREATION,
            default_ttl="1h",
            max_ttl="24h",
        )
        assert database.list_roles()["data"]["keys"] == ["app"]
        seen = database.read_role("app")["data"]
        assert (seen["default_ttl"], seen["max_ttl"]) == (3600, 86400)
        assert seen["creation_statements"] == CREATION
        database.reset_connection("db")
        with pytest.raises(exceptions.InvalidPath):
            database.read_role("none")

    await with_client(leasing, configure)
    made = await with_client(leasing, lambda client: client.secrets.database.generate_credentials("app"))
    user, password = made["data"]["username"], made["data"]["password"]
    assert user.startswith("v-root-app-")
    assert user.endswith(made["lease_id"].rpartition("/")[2])
    assert (made["lease_duration"], made["renewable"]) == (3600, True)
    assert await target.opens(user, password)
    connection = await asyncpg.connect(target.url_of(user, password))
    assert await connection.fetchval("SELECT one FROM things") == 1
    before = await target.sql("SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1", user)
    renewed = await with_client(leasing, lambda client: client.sys.renew_lease(made["lease_id"], 7200))
    assert renewed["lease_duration"] == 7200
    after = await target.sql("SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1", user)
    assert timedelta(minutes=59) < after[0][0] - before[0][0] < timedelta(minutes=61)
    assert timedelta(minutes=119) < after[0][0] - datetime.now(UTC) < timedelta(minutes=121)
    lease = made["lease_id"]
    await with_client(leasing, lambda client: client.sys.revoke_lease(lease))
    await none_left(target)
    assert not await target.opens(user, password)
    with pytest.raises(ENDED):
        await connection.fetchval("SELECT 1")

    def tidy_up(client: hvac.Client) -> None:
        client.secrets.database.delete_role("app")
        client.secrets.database.delete_connection("db")
        client.sys.disable_secrets_engine("database")

    await with_client(leasing, tidy_up)
    for table in ("engine_configs", "engine_roles"):
        assert not await sql(leasing.settings.database_url, f"SELECT key FROM {table}")
    await ledger_is_good(leasing, state=True)


async def test_no_password_is_kept_or_logged(
    ready: Node, target: TargetDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither our password nor a user's is in a row, ledger entry or log line; the server has a verifier."""
    made = await creds(ready)
    password = made["data"]["password"]
    dump = ""
    tables = await sql(
        ready.settings.database_url,
        "SELECT format('%I', tablename) AS name FROM pg_tables WHERE schemaname = 'public'",
    )
    for table in tables:
        rows = await sql(ready.settings.database_url, f"SELECT t::text AS row FROM {table['name']} t")
        dump += "".join(row["row"] for row in rows)
    assert made["data"]["username"] not in dump
    for secret in (CANARY, password):
        for text in (dump, caplog.text, repr(ready.process.core.engine_state)):
            assert secret not in text
            assert secret.encode().hex() not in text
    kept = await target.sql("SELECT rolpassword FROM pg_authid WHERE rolname = $1", made["data"]["username"])
    assert kept[0][0].startswith("SCRAM-SHA-256$4096:")
    told = (await entries(ready.settings.database_url, operation="database.creds", outcome="done"))[0]
    assert made["lease_id"] in str(told["detail"])


async def test_many_at_once_and_a_token_that_ends_them_all(ready: Node, target: TargetDatabase) -> None:
    """Parallel requests all get a user of their own, in spite of their grants; with the token they go."""
    token = await ready.token("app", native(f"{MOUNT}/creds/app"))
    answers = await asyncio.gather(*(creds(ready, token) for _ in range(40)))
    users = {one["data"]["username"]: one["data"]["password"] for one in answers}
    assert len(users) == 40
    assert await target.users() == set(users)
    some = list(users.items())[:3]
    assert all([await target.opens(*one) for one in some])
    await ready.call("POST", "auth/token/revoke", json={"token": token})
    await none_left(target)

    async def forgotten() -> bool:
        # A lease is forgotten once its user is known to be gone.
        return not await sql(ready.settings.database_url, "SELECT id FROM leases")

    await until(forgotten)


async def test_others_who_grant_meanwhile_hold_nobody_up(ready: Node, target: TargetDatabase) -> None:
    """Rights that somebody else changes on the same table at the same time fail no request."""
    over = asyncio.Event()

    async def interfere() -> int:
        rounds = 0
        connection = await asyncpg.connect(target.admin_url)
        while not over.is_set():
            with contextlib.suppress(asyncpg.InternalServerError):  # it is overtaken, too
                await connection.execute("GRANT UPDATE ON things TO PUBLIC")
                await connection.execute("REVOKE UPDATE ON things FROM PUBLIC")
            rounds += 1
        await connection.close()
        return rounds

    others = asyncio.create_task(interfere())
    made = await asyncio.gather(*(creds(ready) for _ in range(30)))
    over.set()
    assert await others > 1
    assert len(await target.users()) == len(made)


async def test_what_a_user_owns_does_not_hold_it(ready: Node, target: TargetDatabase) -> None:
    """What a user has made stays with nobody or goes with it, as the role says; a session of it ends."""
    await target.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    await ok(
        ready,
        "POST",
        f"{MOUNT}/roles/fleeting",
        role(owned_objects="drop", creation_statements="; ".join(CREATION)),
    )
    for name, left in (("app", "app-owned-"), ("fleeting", "")):
        made = await creds(ready, name=name)
        user, password = made["data"]["username"], made["data"]["password"]
        connection = await asyncpg.connect(target.url_of(user, password))
        await connection.execute(f"CREATE TABLE of_{name} ()")
        await connection.execute(f"BEGIN; INSERT INTO of_{name} DEFAULT VALUES")
        await ok(ready, "PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
        owners = await target.sql("SELECT tableowner FROM pg_tables WHERE tablename = $1", f"of_{name}")
        assert [row[0][:-12] for row in owners] == [left] * bool(left)
        assert {row[0] for row in owners} <= await target.owners()
        with pytest.raises(ENDED):
            await connection.fetchval("SELECT 1")
    assert await target.users() == set()


async def test_statements_of_ones_own(ready: Node, target: TargetDatabase) -> None:
    """Ends and renewals follow the role as it is then, or was once it is gone; gone users are no error."""
    await target.sql("CREATE TABLE log (line text)")
    own = {
        "renew_statements": [
            "ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'",
            "INSERT INTO log VALUES ('renew {{name}}')",
        ],
        "revocation_statements": ["INSERT INTO log VALUES ('end {{name}}'); DROP OWNED BY {{name}}"],
    }
    await ok(ready, "POST", f"{MOUNT}/roles/own", role(**own))
    first, second, third = [await creds(ready, name="own") for _ in range(3)]
    users = [one["data"]["username"] for one in (first, second, third)]
    await ok(ready, "PUT", "sys/leases/renew", {"lease_id": first["lease_id"], "increment": "2h"})
    broken = await ready.call("PUT", "sys/leases/revoke", json={"lease_id": first["lease_id"], "sync": True})
    assert broken.status_code == 204, broken.text
    assert users[0] in await target.users()  # as the statements say
    more = {**own, "revocation_statements": [*own["revocation_statements"], "DROP ROLE {{name}}"]}
    await ok(ready, "POST", f"{MOUNT}/roles/own", role(**more))
    await ok(ready, "PUT", "sys/leases/revoke", {"lease_id": second["lease_id"], "sync": True})
    assert users[1] not in await target.users()
    await ok(ready, "DELETE", f"{MOUNT}/roles/own")
    await target.sql(f'DROP OWNED BY "{users[2]}"')
    await target.sql(f'DROP ROLE "{users[2]}"')
    gone = await ready.call(
        "PUT", "sys/leases/renew", json={"lease_id": third["lease_id"], "increment": "2h"}
    )
    assert gone.status_code == 400
    assert "does not exist" in gone.text
    await ok(ready, "PUT", "sys/leases/revoke", {"lease_id": third["lease_id"], "sync": True})
    lines = [row[0] for row in await target.sql("SELECT line FROM log")]
    assert lines == [f"renew {users[0]}", f"end {users[0]}", f"end {users[1]}"]


async def test_a_user_that_is_no_superuser_is_enough(ready: Node, target: TargetDatabase) -> None:
    """With CREATEROLE and what it may grant a connection makes, ends and cleans up after users."""
    limited = f"{target.owner}_limited"
    await target.sql(f"CREATE ROLE {limited} LOGIN CREATEROLE PASSWORD '{CANARY}'")
    try:
        await target.sql(f"GRANT SELECT ON things TO {limited} WITH GRANT OPTION")
        await target.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
        config = target.config(username=limited)
        await ok(ready, "POST", f"{MOUNT}/config/db", config)
        made = await creds(ready)
        connection = await asyncpg.connect(target.url_of(made["data"]["username"], made["data"]["password"]))
        await connection.execute("CREATE TABLE mine ()")
        await ok(ready, "PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
        assert await target.users() == set()
        with pytest.raises(ENDED):
            await connection.fetchval("SELECT 1")
        owners = await target.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'")
        assert {row[0] for row in owners} == await target.owners()
    finally:
        await target.sql(f"DROP OWNED BY {limited} CASCADE")
        await target.sql(f"DROP ROLE {limited}")
