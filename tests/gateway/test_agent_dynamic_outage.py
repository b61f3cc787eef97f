"""Core is away while an agent holds credentials, for a file and an application: what stays, what comes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Caller, node_settings, running
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import MOUNT, role, target
from tests.gateway.kv import ok
from tests.gateway.rotation_hosts import RotationHost, enrolled_host
from tests.gateway.test_agent_dynamic import CREDS, PATHS, TEMPLATE, in_file
from tests.gateway.test_outage import Server as Postgres
from tests.gateway.test_outage import folder
from tests.gateway.test_outage import server as postgres
from tests.gateway.whole_server import Server, mortal

__all__ = ["folder", "postgres", "target"]  # the fixtures


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that may be killed and may connect to loopback, open."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database_url), outbound_networks=("127.0.0.1/32",)
    )
    async with mortal(settings) as started:
        await started.initialise(3, 3)
        await started.unseal()
        yield started


@contextlib.asynccontextmanager
async def served(
    core: Caller, target: TargetDatabase, folder: Path, ttl: str
) -> AsyncIterator[tuple[RotationHost, httpx2.AsyncClient]]:
    """A host with credentials in a file, and a local application that asks for its own."""
    await ok(core, "POST", f"{MOUNT}/config/db", target.config())
    await ok(core, "POST", f"{MOUNT}/roles/app", role(default_ttl=ttl))
    transport = httpx2.AsyncHTTPTransport(uds=str(folder / "agent.sock"))
    async with (
        enrolled_host(core, folder, TEMPLATE, paths=PATHS, granted=(CREDS,)) as host,
        httpx2.AsyncClient(transport=transport, base_url="http://agent", timeout=20) as application,
    ):
        await in_file(host)
        yield host, application


async def asked(application: httpx2.AsyncClient) -> dict[str, Any]:
    """Return the answer to an application that asks for its credentials."""
    answer = await application.get(f"/v1/{CREDS}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def logged(host: RotationHost, words: str) -> None:
    """Wait until the agent says something."""

    async def look() -> bool:
        return words in (host.folder / "agent.log").read_text()

    await until(look, 60)


async def test_core_is_killed_while_leases_last(
    server: Server, target: TargetDatabase, tmp_path: Path
) -> None:
    """What was delivered is handed out meanwhile and afterwards, and nothing is made anew."""
    async with served(server, target, tmp_path / "host", "1h") as (host, application):
        user, password = await in_file(host)
        mine = await asked(application)
        server.kill()
        await server.ended()
        await logged(host, "the connection to Core ended")
        assert (await asked(application))["lease_id"] == mine["lease_id"]
        await server.start()
        await server.unseal()
        await ok(server, "POST", "secrets/app/new", {"data": {"k": "v"}})

        async def again() -> bool:
            return (await application.get("/v1/secrets/app/new")).status_code == 200

        await until(again)
        assert (await asked(application))["lease_id"] == mine["lease_id"]
        assert await in_file(host) == (user, password)
        assert await target.opens(user, password)
        assert await target.users() == {user, mine["data"]["username"]}
    await ledger_is_good(server, state=True)


async def test_core_is_killed_until_leases_are_over(
    server: Server, target: TargetDatabase, tmp_path: Path
) -> None:
    """What has ended is handed to nobody; once Core is back others are made at once, and the old ones go."""
    async with served(server, target, tmp_path / "host", "3s") as (host, application):
        await asked(application)
        server.kill()
        await server.ended()
        user, password = await in_file(host)
        old = await target.users()

        async def over() -> bool:
            answer = await application.get(f"/v1/{CREDS}")
            return answer.status_code == 503 and not await target.opens(user, password)

        await until(over)
        assert (await in_file(host))[0] == user  # nothing better is known
        await server.start()
        await server.unseal()
        now, secret = await in_file(host, user)
        assert await target.opens(now, secret)

        async def anew() -> bool:
            answer = await application.get(f"/v1/{CREDS}")
            return answer.status_code == 200 and answer.json()["data"]["username"] not in old

        await until(anew)

        async def gone() -> bool:
            return not old & await target.users()

        await until(gone)
    await ledger_is_good(server, state=True)


async def test_renewals_catch_up(postgres: Postgres, target: TargetDatabase, tmp_path: Path) -> None:
    """While Core has no database nothing is renewed; afterwards it is, and nobody's user changes."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, postgres.url), outbound_networks=("127.0.0.1/32",)
    )
    async with running(settings) as node:
        await node.initialise()
        await node.unseal()
        async with served(node, target, tmp_path / "host", "30s") as (host, application):
            user, password = await in_file(host)
            mine = await asked(application)
            await postgres.kill()
            await logged(host, "credentials could not be renewed now")
            assert (await asked(application))["lease_id"] == mine["lease_id"]
            await postgres.start_again()

            async def renewed() -> bool:
                rows = await sql(postgres.url, "SELECT 1 FROM leases WHERE renewed_at > issued_at")
                return len(rows) == 2

            await until(renewed, 60)
            assert (await asked(application))["lease_id"] == mine["lease_id"]
            assert await in_file(host) == (user, password)
            assert await target.opens(user, password)
            assert await target.users() == {user, mine["data"]["username"]}
        await ledger_is_good(node, state=True)
