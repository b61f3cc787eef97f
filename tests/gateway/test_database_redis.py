"""Users of Redis for as long as a lease, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import pytest
import redis

from secrethub.engines.database.redis_acl import RedisPlugin
from secrethub.engines.database.target import Statements
from secrethub.errors import InvalidRequest
from tests.gateway import redis_target
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.kv import ok, put
from tests.gateway.redis_target import CANARY, TargetRedis
from tests.gateway.rotations import configured, fields, rotated
from tests.gateway.shell import Cli
from tests.gateway.stray_searches import searched
from tests.gateway.test_hvac import with_client

MOUNT = "secrets/dynamic/redis"
RULES = '["~app:*", "+get", "+set", "+client|id"]'


@pytest.fixture
def target(tmp_path: Path) -> Iterator[TargetRedis]:
    """A server."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with redis_target.running(folder) as started:
        yield started


@pytest.fixture
async def ready(leasing: Node, target: TargetRedis) -> Node:
    """The node with the connection ``cache`` and the role ``app``."""
    await ok(leasing, "POST", f"{MOUNT}/config/cache", target.config())
    role = {"db_name": "cache", "creation_statements": RULES, "default_ttl": "1h", "max_ttl": "24h"}
    await ok(leasing, "POST", f"{MOUNT}/roles/app", role)
    return leasing


async def creds(node: Node) -> dict[str, Any]:
    """Make a user, and return the whole answer."""
    answer = await node.call("GET", f"{MOUNT}/creds/app")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ask_on(connection: Any) -> None:
    """Ask until that fails."""
    for _ in range(100_000):
        connection.send_command("GET", "app:a")
        connection.read_response()


async def test_hvac_drives_it_as_vaults_plugin(leasing: Node, target: TargetRedis) -> None:
    """Vault's client configures Redis, gets a user that may do what its role says, and takes it back."""

    def work(client: hvac.Client) -> None:
        client.sys.enable_secrets_engine("database")
        database = client.secrets.database
        database.configure(name="cache", **target.config())
        read = database.read_connection("cache")["data"]["connection_details"]
        assert read["connection_url"] == f"redis://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{target.port}"
        database.create_role(
            name="app", db_name="cache", creation_statements=[RULES], default_ttl="1h", max_ttl="24h"
        )
        made = database.generate_credentials("app")
        user = target.client(made["data"]["username"], made["data"]["password"])
        assert user.set("app:a", "1")
        assert user.get("app:a") == "1"
        for forbidden in (("GET", "other"), ("DEL", "app:a"), ("ACL", "WHOAMI")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*forbidden)
        assert client.sys.renew_lease(made["lease_id"], 7200)["lease_duration"] == 7200
        told = target.client().acl_getuser(made["data"]["username"])
        assert made["data"]["password"] not in str(told)
        live = target.client(made["data"]["username"], made["data"]["password"]).connection_pool
        connection = live.get_connection()
        client.sys.revoke_lease(made["lease_id"])
        # The connection ends with its user.
        with pytest.raises((redis.ConnectionError, redis.exceptions.NoPermissionError)):
            ask_on(connection)
        assert not target.opens(made["data"]["username"], made["data"]["password"])

    await with_client(leasing, work)


async def test_users_and_their_end_survive_a_restart_of_the_server(ready: Node, target: TargetRedis) -> None:
    """A user is let in after Redis was killed, and one that was ended is not back; ends wait for it."""
    kept, ended, late = [await creds(ready) for _ in range(3)]
    body = {"lease_id": ended["lease_id"], "sync": True}
    assert (await ready.call("PUT", "sys/leases/revoke", json=body)).status_code == 204
    target.stop()
    assert (await ready.call("GET", f"{MOUNT}/creds/app")).status_code == 503
    await ready.call("PUT", "sys/leases/revoke", json={"lease_id": late["lease_id"]})
    target.start()
    assert target.opens(kept["data"]["username"], kept["data"]["password"])
    assert not target.opens(ended["data"]["username"], ended["data"]["password"])

    async def only_one() -> bool:
        return target.made() == {kept["data"]["username"]}

    await until(only_one)
    url = ready.settings.database_url
    told = str(await entries(url)) + str(
        [dict(row) for row in await sql(url, "SELECT * FROM engine_configs")]
    )
    assert CANARY not in told
    assert kept["data"]["password"] not in told
    await ledger_is_good(ready, state=True)


async def test_a_servers_own_configuration_keeps_users_and_their_end(leasing: Node, tmp_path: Path) -> None:
    """Without a file for users they are in the configuration's, through a crash of Redis."""
    folder = tmp_path / "configured"
    folder.mkdir()
    with redis_target.running(folder, aclfile=False, configuration=True) as configured_one:
        await ok(leasing, "POST", f"{MOUNT}/config/cache", configured_one.config())
        await ok(leasing, "POST", f"{MOUNT}/roles/app", {"db_name": "cache", "default_ttl": "1h"})
        kept, ended = await creds(leasing), await creds(leasing)
        await ok(leasing, "PUT", "sys/leases/revoke", {"lease_id": ended["lease_id"], "sync": True})
        configured_one.stop()
        configured_one.start()
        for made, good in ((kept, True), (ended, False)):
            assert configured_one.opens(made["data"]["username"], made["data"]["password"]) == good
        await ok(leasing, "PUT", "sys/leases/revoke", {"lease_id": kept["lease_id"], "sync": True})


async def test_a_server_that_keeps_nothing_is_told_of(leasing: Node, tmp_path: Path) -> None:
    """Without a file that keeps its users Redis is not taken, unless the operator says that he knows."""
    folder = tmp_path / "bare"
    folder.mkdir()
    with redis_target.running(folder, aclfile=False) as bare:
        answer = await leasing.call("POST", f"{MOUNT}/config/bare", json=bare.config())
        assert answer.status_code == 400
        assert "would not survive a restart" in answer.text
        await ok(leasing, "POST", f"{MOUNT}/config/bare", bare.config(persistence_mode="NONE"))


async def test_our_own_password_and_those_of_static_roles_are_replaced(
    ready: Node, target: TargetRedis
) -> None:
    """After a replacement the old password opens nothing, also after a restart, and strays are found."""
    await ok(
        ready,
        "POST",
        f"{MOUNT}/static-roles/app",
        {
            "db_name": "cache",
            "username": "app",
            "rotation_period": "24h",
        },
    )
    first = (await ok(ready, "GET", f"{MOUNT}/static-creds/app"))["password"]
    assert target.opens("app", first)
    assert not target.opens("app", "first")
    await ok(ready, "POST", f"{MOUNT}/rotate-role/app")
    second = (await ok(ready, "GET", f"{MOUNT}/static-creds/app"))["password"]
    assert second != first
    made = await creds(ready)
    target.client().execute_command("ACL", "SETUSER", made["data"]["username"][:-24] + "B" * 24)
    strays = await ok(ready, "POST", f"{MOUNT}/strays/cache")
    assert strays["removed"] == [made["data"]["username"][:-24] + "B" * 24]
    await ok(ready, "POST", f"{MOUNT}/rotate-root/cache")
    assert not target.opens("secrethub", CANARY)
    await creds(ready)
    missing = await ready.call(
        "POST",
        f"{MOUNT}/static-roles/no",
        json={
            "db_name": "cache",
            "username": "nobody",
            "rotation_period": "24h",
        },
    )
    assert missing.status_code == 400, missing.text


@pytest.mark.parametrize(
    "statements",
    [
        ["+@read nopass"],
        ["on"],
        ['["~*", ">known"]'],
        ["~* #" + "0" * 64],
        ["reset"],
        ["+get\r\nACL SETUSER x on"],
        ["+get\x00"],
        ['["~a", {}]'],
    ],
    ids=repr,
)
def test_rules_give_no_password_and_no_second_command(statements: list[str]) -> None:
    """What would let anybody in, or is no rule, is refused when the role is written."""
    with pytest.raises(InvalidRequest):
        RedisPlugin().check_statements(Statements(creation=tuple(statements)))


async def test_the_command_line(leasing: Node, target: TargetRedis, tmp_path: Path) -> None:
    """``secrethub engine`` tells Redis by its URL, and makes users there."""
    cli = Cli(leasing, tmp_path)
    at = ("--mount", MOUNT)
    url = ("--url", f"redis://127.0.0.1:{target.port}", "--username", "secrethub", "--allow", "app")
    more = ("--persistence-mode", "ACLFILE", "--password-file", "-")
    await cli("engine", "connection", "write", "cache", *url, *more, *at, stdin=f"{CANARY}\n")
    shown = await cli.json("engine", "connection", "read", "cache", *at)
    assert shown["plugin_name"] == "redis-database-plugin"
    assert shown["connection_details"]["persistence_mode"] == "ACLFILE"
    role = ("--connection", "cache", "--creation", "~app:* +get", "--ttl", "1h")
    await cli("engine", "role", "write", "app", *role, *at)
    made = await cli.json("engine", "creds", "app", *at)
    assert target.opens(made["username"], made["password"])


async def test_places_that_are_refused(ready: Node, target: TargetRedis) -> None:
    """Another place takes the password anew; loopback and servers in clear need the operator's settings."""
    for changed in ({"port": 1, "host": "127.0.0.1"}, {"username": "app"}):
        answer = await ready.call("POST", f"{MOUNT}/config/cache", json=changed)
        assert answer.status_code == 400, answer.text
        assert "password" in answer.text
    for url in (
        "redis://h/0",
        "http://h",
        "redis://",
        "redis://169.254.169.254:6379",
        "rediss://127.0.0.2:1",
    ):
        body = {"connection_url": url, "plugin_name": "redis", "username": "u", "password": "p"}
        answer = await ready.call("POST", f"{MOUNT}/config/other", json=body)
        assert answer.status_code == 400, (url, answer.text)


async def test_rotations_replace_passwords(ready: Node, target: TargetRedis) -> None:
    """Two users take turns, and one gets a new password; a restart lets nobody in who was barred."""
    target.client().execute_command("ACL", "SETUSER", "app2", "on", ">second", "~*", "+@read")
    await put(ready, "app/cache", {"username": "app", "password": "first"})
    options = {"connection": f"{MOUNT}/config/cache", "users": "app,app2"}
    path = "secrets/app/cache"
    await configured(ready, path, rotator="database-two-users", options=options, confirm_within=0)
    assert (await rotated(ready, path))["outcome"] == "done"
    now = await fields(ready, path)
    assert now["username"] == "app2"
    target.stop()
    target.start()
    assert target.opens("app2", now["password"])
    assert not target.opens("app2", "second")
    assert not target.opens("app", "first")
    alone = {"connection": f"{MOUNT}/config/cache", "username": "app2"}
    await configured(ready, path, rotator="database-password", options=alone, confirm_within=0)
    assert (await rotated(ready, path))["outcome"] == "done"
    assert target.opens("app2", (await fields(ready, path))["password"])
    assert not target.opens("app2", now["password"])


class Doorman:
    """Before a server: lets nobody pass until it is told to, and counts who has come."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = asyncio.Event()
        self.came = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.came += 1
        await self._open.wait()
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(_passed(reader, ours), _passed(theirs, writer))

    def open(self) -> None:
        """Let everybody pass."""
        self._open.set()


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_no_more_connections_than_configured(ready: Node, target: TargetRedis) -> None:
    """However many ask at once, no more than so many are connected; the others wait and are served."""
    doorman, wanted = Doorman(target.port), 20
    server = await asyncio.start_server(doorman.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    behind = target.config(port=port, max_open_connections=3, verify_connection=False)
    await ok(ready, "POST", f"{MOUNT}/config/cache", behind)
    asking = [asyncio.create_task(creds(ready)) for _ in range(wanted)]

    async def enough() -> bool:
        return doorman.came >= 3

    await until(enough)
    await asyncio.sleep(0.2)  # for those who come in spite of that
    assert doorman.came == 3
    doorman.open()
    assert len({made["lease_id"] for made in await asyncio.gather(*asking)}) == wanted
    server.close()


async def test_strays_are_searched_for_by_themselves(ready: Node, target: TargetRedis) -> None:
    """A search finds a user without a lease and leaves it; told to remove strays, it removes that only."""
    name = (await creds(ready))["data"]["username"]
    stray, theirs = name[:-24] + "B" * 24, f"v-x-{'0' * 12}-{'B' * 24}"
    for user in (stray, theirs):
        target.client().execute_command("ACL", "SETUSER", user)
    assert await searched(ready) == (1, [stray])
    assert {stray, theirs, name} <= set(target.client().acl_users())
    await ok(ready, "POST", f"{MOUNT}/config/cache", target.config(remove_strays=True))
    assert await searched(ready) == (0, [])
    there = set(target.client().acl_users())
    assert (stray in there, theirs in there, name in there) == (False, True, True)
