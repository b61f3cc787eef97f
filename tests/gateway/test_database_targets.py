"""Targets of the database engine: what is refused, what an outage does, what a mount takes along."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.behind import sql, until
from tests.gateway.conftest import Node, native, node_settings, running
from tests.gateway.database_target import CANARY, TargetDatabase
from tests.gateway.databases import MOUNT, creds, ready, role, target
from tests.gateway.kv import ok

__all__ = ["ready", "target"]  # the fixtures


async def refused(node: Node, body: dict[str, Any], words: str, path: str = "config/db") -> None:
    """Check that a write is refused, and that the answer does not repeat a password."""
    answer = await node.call("POST", f"{MOUNT}/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert words in answer.text
    assert CANARY not in answer.text


async def test_what_cannot_be_a_connection(leasing: Node, target: TargetDatabase) -> None:
    """What would show a password, read Core's files, or cannot be, is refused when it is written."""
    url = target.connection_url
    for body, words in (
        ({"plugin_name": "mysql-database-plugin"}, "plugin_name"),
        ({"connection_url": "mysql://{{username}}:{{password}}@db/app"}, "connection_url"),
        ({"connection_url": "host=db user={{username}}"}, "connection_url"),
        ({"connection_url": "postgresql://{{username}}@/app?host=/run"}, "connection_url"),
        ({"connection_url": url + "&sslrootcert=/etc/passwd"}, "no parameter but sslmode"),
        ({"connection_url": url + "&service=x"}, "no parameter but sslmode"),
        ({"connection_url": "postgresql://a,b/app"}, "one host"),
        ({"connection_url": url.replace("disable", "prefer")}, "sslmode"),
        ({"connection_url": "postgresql://169.254.169.254/x"}, "link-local"),
        ({"connection_url": "postgresql://10.0.0.1/x?sslmode=disable"}, "without TLS"),
        ({"connection_url": "postgresql://10.0.0.1/x?sslmode=require"}, "without TLS"),
        ({"password_authentication": "password"}, "scram-sha-256"),
        ({"tls_ca": "x", "connection_url": url.replace("disable", "verify-ca")}, "tls_ca"),
        ({"scram_iterations": "0"}, "scram_iterations"),
        ({"password": "wrong"}, "refuses the name or the password"),
        ({"max_open_connections": 0}, "max_open_connections"),
        ({"password_policy": "none"}, "password policy"),
        ({"username_template": "{{.Secret}}"}, "template"),
        ({"allowed_roles": ["a?"]}, "allowed_roles"),
    ):
        await refused(leasing, target.config(**body), words)
    await ok(leasing, "POST", f"{MOUNT}/config/db", target.config())
    for body, words in (
        ({"creation_statements": []}, "creation_statements"),
        ({"creation_statements": ["CREATE ROLE {{nam}}"]}, "unknown placeholder"),
        ({"revocation_statements": "DROP ROLE '{{name}}"}, "not closed"),
        ({"db_name": "other"}, "no connection"),
        ({"default_ttl": "2h", "max_ttl": "1h"}, "max_ttl"),
        ({"owned_objects": "keep"}, "owned_objects"),
        ({"credential_type": "rsa_private_key"}, "credential_type"),
    ):
        await refused(leasing, role(**body), words, "roles/app")


async def test_without_the_operator_loopback_is_no_target(
    database_url: str, target: TargetDatabase, tmp_path: Path
) -> None:
    """Whoever may configure connections reaches nothing on Core's own host unless its operator says so."""
    async with running(node_settings(tmp_path, database_url)) as node:
        await node.initialise()
        await node.unseal()
        await refused(node, target.config(), "loopback")
        await ok(node, "POST", f"{MOUNT}/config/db", target.config(verify_connection=False))
        await ok(node, "POST", f"{MOUNT}/roles/app", role())
        answer = await node.call("GET", f"{MOUNT}/creds/app")
        assert answer.status_code == 400
        assert "loopback" in answer.text
        assert target.proxy.asked == 0


async def test_a_kept_password_is_not_sent_elsewhere(ready: Node, target: TargetDatabase) -> None:
    """Who may write a connection, without its password, cannot have that sent to a place of his own."""
    elsewhere = target.connection_url.replace("127.0.0.1", "localhost")
    for body in ({"connection_url": elsewhere}, {"username": "somebody"}):
        await refused(ready, {**body, "verify_connection": False}, "anew")
    await ok(ready, "POST", f"{MOUNT}/config/db", {"max_open_connections": 2})
    await creds(ready)
    inside = target.url_of(target.owner, CANARY) + "?sslmode=disable"
    await ok(ready, "POST", f"{MOUNT}/config/db", {"connection_url": inside})
    read = await ready.call("GET", f"{MOUNT}/config/db")
    assert CANARY not in read.text
    assert read.json()["data"]["connection_details"]["connection_url"] == target.connection_url
    await creds(ready)


async def test_who_moves_a_connection_is_told_of_its_leases(ready: Node, target: TargetDatabase) -> None:
    """Another place with leases from the old one is taken with a warning; without leases with none."""
    other = target.connection_url.replace(f"/{target.name}", "/postgres")
    old, new = target.config(), target.config(connection_url=other)
    made = await creds(ready)
    told = await ready.call("POST", f"{MOUNT}/config/db", json=new)
    assert (told.status_code, "stay at the old one" in told.json()["warnings"][0]) == (200, True), told.text
    assert (await ready.call("POST", f"{MOUNT}/config/db", json=new)).status_code == 204
    assert (await ready.call("POST", f"{MOUNT}/config/db", json=old)).status_code == 200
    await ok(ready, "PUT", "sys/leases/revoke", {"lease_id": made["lease_id"], "sync": True})
    assert (await ready.call("POST", f"{MOUNT}/config/db", json=new)).status_code == 204


async def test_who_may_do_what(ready: Node, target: TargetDatabase) -> None:
    """A role is for those who may read its users, and for roles that its connection allows."""
    token = await ready.token("app", native(f"{MOUNT}/creds/app"))
    await creds(ready, token)
    for method, path in (
        ("GET", "creds/other"),
        ("GET", "config/db"),
        ("POST", "config/db"),
        ("GET", "roles/app"),
        ("DELETE", "roles/app"),
        ("POST", "reset/db"),
        ("GET", "health/db"),
    ):
        assert (await ready.call(method, f"{MOUNT}/{path}", token)).status_code == 403, path
    for path in ("creds/none", "creds/a%20b"):
        assert (await ready.call("GET", f"{MOUNT}/{path}")).status_code == 400, path
    await ok(ready, "POST", f"{MOUNT}/config/db", {"allowed_roles": ["ap*"]})
    await creds(ready)
    await ok(ready, "POST", f"{MOUNT}/config/db", {"allowed_roles": ["other"]})
    answer = await ready.call("GET", f"{MOUNT}/creds/app")
    assert answer.status_code == 400
    assert "not an allowed role" in answer.text
    assert len(await target.users()) == 2


async def test_a_failing_statement_leaves_nothing(ready: Node, target: TargetDatabase) -> None:
    """When the target refuses half way, nobody is answered a user, and none and no lease is left."""
    statements = [*role()["creation_statements"], 'GRANT nobody_of_this_name TO "{{name}}"']
    await ok(ready, "POST", f"{MOUNT}/roles/app", role(creation_statements=statements))
    answer = await ready.call("GET", f"{MOUNT}/creds/app")
    assert answer.status_code == 400
    assert "nobody_of_this_name" in answer.text
    assert await target.users() == set()

    async def undone() -> bool:
        return not await sql(ready.settings.database_url, "SELECT id FROM leases")

    await until(undone)


async def test_an_outage_of_the_target(ready: Node, target: TargetDatabase) -> None:
    """While it is away requests are refused quickly and leases wait; once it is back everything goes on."""
    first = await creds(ready)
    await target.go_away()
    for _ in range(4):
        assert (await ready.call("GET", f"{MOUNT}/creds/app")).status_code == 503
    health = await ok(ready, "GET", f"{MOUNT}/health/db")
    assert (health["breaker"], health["failures"]) == ("open", 3)
    order = {"lease_id": first["lease_id"], "sync": True}
    assert (await ready.call("PUT", "sys/leases/revoke", json=order)).status_code == 503
    other = await ready.call("DELETE", f"{MOUNT}/config/db")
    assert (other.status_code, "leases" in other.text) == (400, True)
    await target.come_back()
    assert (await ok(ready, "POST", f"{MOUNT}/health/db"))["breaker"] == "closed"
    await creds(ready)

    async def ended() -> bool:
        return first["data"]["username"] not in await target.users()

    await until(ended)
    checks = (await ok(ready, "GET", f"{MOUNT}/health/db"))["checks"]
    assert checks[0]["error"] == ""


async def test_after_a_rest_one_asks_for_all(ready: Node, target: TargetDatabase) -> None:
    """A target that was away is asked by one request; the others are refused until it has answered."""
    await target.go_away()
    for _ in range(3):
        assert (await ready.call("GET", f"{MOUNT}/creds/app")).status_code == 503
    await target.come_back()
    target.proxy.hold()

    async def half_open() -> bool:
        return bool((await ok(ready, "GET", f"{MOUNT}/health/db"))["breaker"] == "half-open")

    await until(half_open)
    before = target.proxy.asked
    asking = asyncio.create_task(ready.call("GET", f"{MOUNT}/creds/app"))

    async def asked() -> bool:
        return target.proxy.asked > before

    await until(asked)
    answers = await asyncio.gather(*(ready.call("GET", f"{MOUNT}/creds/app") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}
    target.proxy.release()
    assert (await asking).status_code in {200, 503}

    async def well() -> bool:
        return (await ready.call("GET", f"{MOUNT}/creds/app")).status_code == 200

    await until(well)


async def test_no_more_connections_than_configured_and_for_no_longer(
    ready: Node, target: TargetDatabase
) -> None:
    """However many ask at once, they share a few connections, which are used again until they are old."""

    async def open_ones() -> set[int]:
        rows = await target.sql("SELECT pid FROM pg_stat_activity WHERE usename = $1", target.owner)
        return {row["pid"] for row in rows}

    async def used(**settings: Any) -> set[int]:
        await ok(ready, "POST", f"{MOUNT}/config/db", settings)
        await asyncio.gather(*(creds(ready) for _ in range(20)))
        return await open_ones()

    assert len(await used(max_open_connections=2)) <= 2
    assert len(await used(max_open_connections=3)) == 3
    kept = await used(max_open_connections=1)
    await creds(ready)
    assert await open_ones() == kept
    old = await used(max_connection_lifetime="1s")

    async def replaced() -> bool:
        await creds(ready)
        return not await open_ones() & old

    await until(replaced)


async def test_a_mount_takes_its_users_along(leasing: Node, target: TargetDatabase) -> None:
    """What is mounted anywhere works there; removed, its users go with it, and then what is configured."""
    for path in ("database", "secrets/dynamic/more"):
        await ok(leasing, "POST", f"sys/mounts/{path}", {"type": "database"})
        await ok(leasing, "POST", f"{path}/config/db", target.config())
        await ok(leasing, "POST", f"{path}/roles/app", role())
        await ok(leasing, "POST", f"{path}/creds/app")
    assert len(await target.users()) == 2
    for path in ("database", "secrets/dynamic/more"):
        await ok(leasing, "DELETE", f"sys/mounts/{path}")
    assert await target.users() == set()
    assert not await sql(leasing.settings.database_url, "SELECT key FROM engine_configs")
    assert not await sql(leasing.settings.database_url, "SELECT key FROM engine_roles")


@pytest.mark.parametrize("column", ["body = jsonb_set(body, '{allowed_roles}', '[\"*\"]')", "revision = 99"])
async def test_an_edited_row_is_refused(ready: Node, column: str) -> None:
    """Who writes to Core's database gives himself no role and no target."""
    await ok(ready, "POST", f"{MOUNT}/config/db", {"allowed_roles": ["other"]})
    await sql(ready.settings.database_url, f"UPDATE engine_configs SET {column}")
    ready.process.core.authority.drop()
    assert (await ready.call("GET", f"{MOUNT}/creds/app")).status_code == 500
