"""Passwords of database users are replaced at a real PostgreSQL, and applications do not notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.behind import entries, ledger_is_good
from tests.gateway.conftest import Node, native
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import MOUNT, target
from tests.gateway.kv import ok, put
from tests.gateway.rotation_hosts import application, enrolled_host, watching
from tests.gateway.rotations import configured, fields, rotated

__all__ = ["target"]  # the fixture

PATH = "secrets/app/db"
CONNECTION = f"{MOUNT}/config/db"
TIMES = 50


@pytest.fixture
async def users(target: TargetDatabase) -> AsyncIterator[tuple[str, str]]:
    """Two users that people own, with the same rights."""
    names = (f"{target.name}_a", f'{target.name}_"b')
    quoted = [name.replace('"', '""') for name in names]
    for name in quoted:
        await target.sql(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'first'")
        await target.sql(f'GRANT SELECT ON things TO "{name}"')
    yield names
    for name in quoted:
        await target.sql(f'DROP OWNED BY "{name}"')
        await target.sql(f'DROP ROLE "{name}"')


@pytest.fixture
async def node(leasing: Node, target: TargetDatabase) -> Node:
    """A node with a connection to the target."""
    await ok(leasing, "POST", CONNECTION, target.config())
    return leasing


def two(users: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Return the configuration of two users that take turns."""
    options = {"connection": CONNECTION, "users": ",".join(users)}
    return {"rotator": "database-two-users", "options": options, "confirm_within": 0, **more}


def one(user: str) -> dict[str, Any]:
    """Return the configuration of one user."""
    options = {"connection": CONNECTION, "username": user}
    return {"rotator": "database-password", "options": options, "confirm_within": 0}


async def test_two_users_take_turns(node: Node, target: TargetDatabase, users: tuple[str, str]) -> None:
    """After each run the one in the secret can log in and the other cannot; the ledger has no password."""
    await put(node, "app/db", {"username": users[0], "password": "first", "host": "db"})
    await configured(node, PATH, **two(users))
    old = ("", "")
    for expected in (users[1], users[0], users[1]):
        assert (await rotated(node, PATH))["outcome"] == "done"
        now = await fields(node, PATH)
        assert (now["username"], now["host"]) == (expected, "db")
        assert await target.opens(expected.replace('"', "%22"), now["password"])
        other = users[0] if expected == users[1] else users[1]
        assert not await target.opens(other.replace('"', "%22"), old[1] or "first")
        old = (expected, now["password"])
    told = json.dumps(await entries(node.settings.database_url), default=str)
    assert old[1] not in told
    await ledger_is_good(node, state=True)


@pytest.mark.parametrize("kind", [one, two])
async def test_a_dry_run_asks_the_database_and_changes_nothing(
    node: Node, target: TargetDatabase, users: tuple[str, str], kind: Any
) -> None:
    """It tells whether the users are there, and that the database does not answer; passwords stay."""
    run, dry = f"sys/rotation/run/{PATH}", {"dry_run": True}
    await put(node, "app/db", {"username": users[0], "password": "first"})
    await configured(node, PATH, **kind(users if kind is two else users[0]))
    assert (await ok(node, "POST", run, dry))["possible"] is True
    assert await target.opens(users[0], "first")
    assert (await fields(node, PATH))["password"] == "first"
    await configured(node, PATH, **kind((users[0], "nobody") if kind is two else "nobody"))
    told = await ok(node, "POST", run, dry)
    assert (told["possible"], told["problem"]) == (False, "there is no user nobody")
    await ok(node, "POST", CONNECTION, {"max_open_connections": 2})
    target.proxy.set(b"FROM pg_roles", lost=True)
    asking = asyncio.create_task(ok(node, "POST", run, dry))
    await target.proxy.sprung.wait()
    target.proxy.cut()
    told = await asking
    assert (told["possible"], "in time" in told["problem"]) == (False, True)
    await target.go_away()
    told = await ok(node, "POST", run, dry)
    assert (told["possible"], "does not answer" in told["problem"]) == (False, True)


async def test_one_user_gets_a_new_password(
    node: Node, target: TargetDatabase, users: tuple[str, str]
) -> None:
    """The secret's password is that of the user; a user that is not there is told of, and nothing changes."""
    await put(node, "app/db", {"password": "first"})
    await configured(node, PATH, **one(users[0]))
    assert (await rotated(node, PATH))["outcome"] == "done"
    now = await fields(node, PATH)
    assert now["username"] == users[0]
    assert await target.opens(users[0], now["password"])
    assert not await target.opens(users[0], "first")
    await configured(node, PATH, **one("nobody_of_this_name"))
    past = await rotated(node, PATH)
    assert past["outcome"] == "undone"
    assert "does not exist" in past["reason"]
    assert await fields(node, PATH) == now


async def test_a_run_that_is_undone_bars_the_new_user_only(
    node: Node, target: TargetDatabase, users: tuple[str, str]
) -> None:
    """Who cannot be used after all is barred again, and the old one stays as good as he was."""
    await put(node, "app/db", {"username": users[0], "password": "first"})
    await configured(node, PATH, **two(users))
    await target.sql('ALTER ROLE "{}" NOLOGIN'.format(users[1].replace('"', '""')))
    past = await rotated(node, PATH)
    assert past["outcome"] == "undone"
    assert await target.opens(users[0], "first")
    assert (await fields(node, PATH))["username"] == users[0]
    row = await target.sql("SELECT rolpassword FROM pg_authid WHERE rolname = $1", users[1])
    assert row[0]["rolpassword"] is None


async def test_a_connection_lends_its_power_to_those_who_may_change_it(
    node: Node, target: TargetDatabase, users: tuple[str, str]
) -> None:
    """The right to a secret and its rotation is not the right to a database; our own user is nobody's."""
    await put(node, "app/db", {"username": users[0], "password": "first"})
    mine = native("secrets/app/**", "sys/rotation/**", capabilities=("read", "create", "update"))
    token = await node.token("app", mine)
    refused = await node.call("POST", f"sys/rotation/config/{PATH}", token, json=two(users))
    assert refused.status_code == 403
    await configured(node, PATH, **one(target.owner))
    refused = await node.call("POST", f"sys/rotation/run/{PATH}")
    assert refused.status_code == 400
    assert "rotate-root" in refused.json()["errors"][0]
    for wrong in (
        {"rotator": "database-password", "options": {"connection": CONNECTION}},
        {"rotator": "database-password", "options": {"username": users[0]}},
        {"rotator": "database-two-users", "options": {"connection": CONNECTION, "users": "a,a"}},
        {"rotator": "database-two-users", "options": {"connection": "sys/config", "users": "a,b"}},
    ):
        answer = await node.call("POST", f"sys/rotation/config/{PATH}", json=wrong)
        assert answer.status_code == 400, answer.text


async def test_a_connection_is_found_where_its_mount_is_now(
    node: Node, target: TargetDatabase, users: tuple[str, str]
) -> None:
    """A mount that moved goes on; one that was made anew where it was is another and is never asked."""
    await put(node, "app/db", {"username": users[0], "password": "first"})
    await configured(node, PATH, **two(users))
    await ok(node, "POST", "sys/remount", {"from": MOUNT, "to": "moved"})
    await ok(node, "POST", f"sys/mounts/{MOUNT}", {"type": "database"})
    await ok(node, "POST", CONNECTION, {**target.config(), "password": "wrong", "verify_connection": False})
    assert (await rotated(node, PATH))["outcome"] == "done"
    now = await fields(node, PATH)
    assert await target.opens(users[1].replace('"', "%22"), now["password"])
    await ok(node, "DELETE", "sys/mounts/moved")
    refused = await node.call("POST", f"sys/rotation/run/{PATH}")
    assert refused.status_code == 400
    assert "not mounted any more" in refused.json()["errors"][0]
    assert await fields(node, PATH) == now


async def test_an_application_does_not_notice(
    node: Node, target: TargetDatabase, users: tuple[str, str], tmp_path: Path
) -> None:
    """None of its queries fails while its password is replaced again and again; it knows it from a file."""
    await put(node, "app/db", {"username": users[0], "password": "first"})
    template = '{{ secret("secrets/app/db").username }} {{ secret("secrets/app/db").password }}'
    async with enrolled_host(node, tmp_path, template) as host:
        await host.holds(f"{users[0]} first")
        await watching(node)
        await configured(node, PATH, **two(users, confirm_within="1h"))
        where = f"postgresql://127.0.0.1:{target.port}/{target.name}"
        async with application(host.file, where) as told:
            for _ in range(TIMES):
                past = await rotated(node, PATH)
                assert (past["outcome"], past["missing"]) == ("done", 0)
    assert told["failed"] == []
    assert told["asked"] > TIMES
    assert len(told["users"]) > TIMES / 2
