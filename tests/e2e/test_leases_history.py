"""Credentials of a database on Ray while processes die: LeaseManager, gateway and PostgreSQL, each alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.e2e.development import Development
from tests.e2e.processes import alive, found, the, until
from tests.gateway.behind import until as soon
from tests.gateway.database_target import TargetDatabase, target_database
from tests.gateway.databases import CREATION, MOUNT
from tests.http_transport import PlainTransport

pytestmark = pytest.mark.timeout(300)

LEASE_MANAGER = r"ray::LeaseManager"
GATEWAY = r"ray::ServeReplica:secrethub:Gateway"
STEPS = 24
OPERATIONS = {"issue": 6, "brief": 4, "renew": 4, "revoke": 4}
"""How often each, among all that is asked for; between them everything below dies once, in any order."""
DEATHS = ("lease manager", "gateway", "database", "target")


class Door:
    """The plain HTTP door, for as long as whatever answers there."""

    def __init__(self, development: Development) -> None:
        self._client = httpx2.AsyncClient(
            base_url=f"{development.url}/v1/",
            headers={"X-Vault-Token": development.root_token},
            timeout=30.0,
            transport=PlainTransport(),
        )

    async def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request."""
        return await self._client.request(method, path, **options)

    async def sure(self, method: str, path: str, body: Any) -> None:
        """Send a request that must succeed."""
        answer = await self.call(method, path, json=body)
        assert answer.is_success, answer.text

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class History:
    """Asks for one thing after another, and keeps what was promised."""

    def __init__(self, door: Door, chance: random.Random) -> None:
        self.door = door
        self.chance = chance
        self.live: dict[str, tuple[str, str]] = {}
        self.ending: dict[str, tuple[str, str]] = {}
        self.unknown: dict[str, tuple[str, str]] = {}

    async def ask(self) -> None:
        """Ask for something; no answer is an answer, too."""
        name = self.chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        with contextlib.suppress(httpx2.TransportError):
            if name in {"issue", "brief"}:
                await self._issue("app" if name == "issue" else "brief")
            elif self.live:
                lease = self.chance.choice(list(self.live))
                if name == "renew":
                    await self.door.call(
                        "PUT", "sys/leases/renew", json={"lease_id": lease, "increment": "2h"}
                    )
                else:
                    await self._revoke(lease)

    async def _issue(self, role: str) -> None:
        answer = await self.door.call("GET", f"{MOUNT}/creds/{role}")
        if answer.is_success:
            made = answer.json()
            kept = self.live if role == "app" else self.ending
            kept[made["lease_id"]] = (made["data"]["username"], made["data"]["password"])

    async def _revoke(self, lease: str) -> None:
        whose = self.live.pop(lease)
        self.unknown[lease] = whose
        if (await self.door.call("PUT", "sys/leases/revoke", json={"lease_id": lease})).is_success:
            self.ending[lease] = self.unknown.pop(lease)

    async def leases(self) -> set[str]:
        """Return the leases that there are."""
        there = set()
        for role in ("app", "brief"):
            answer = await self.door.call("LIST", f"sys/leases/lookup/{MOUNT}/creds/{role}")
            if answer.status_code != 404:
                assert answer.status_code == 200, answer.text
                there |= {f"{MOUNT}/creds/{role}/{key}" for key in answer.json()["data"]["keys"]}
        return there


@pytest.fixture
async def door(development: Development) -> AsyncIterator[Door]:
    """A door of the shared cluster."""
    made = Door(development)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def target(postgres_url: str, door: Door) -> AsyncIterator[TargetDatabase]:
    """A target on another server, with two roles, one of them for two seconds."""
    async with target_database(postgres_url) as made:
        await made.sql("CREATE TABLE things AS SELECT 1 AS one")
        await door.sure("POST", f"{MOUNT}/config/db", made.config())
        for name, ttl in (("app", "1h"), ("brief", "2s")):
            role = {"db_name": "db", "creation_statements": CREATION, "default_ttl": ttl, "max_ttl": "24h"}
            await door.sure("POST", f"{MOUNT}/roles/{name}", role)
        yield made
        await door.sure("PUT", f"sys/leases/revoke-prefix/{MOUNT}/creds", {"sync": True})

        async def deleted() -> bool:
            return (await door.call("DELETE", f"{MOUNT}/config/db")).is_success

        # What a gateway died of making is undone by itself, after a minute.
        await soon(deleted, 120)


async def die(development: Development, target: TargetDatabase, what: str) -> None:
    """Let something die amid what is asked for, and wait until it is back."""
    if what == "target":
        await target.go_away()
        await asyncio.sleep(1.0)
        await target.come_back()
        return
    pattern = LEASE_MANAGER if what == "lease manager" else GATEWAY
    if what == "database":
        url = development.core.addresses().database_url
        connection = await asyncpg.connect(url)
        # Whichever server process dies so, PostgreSQL ends all of them and recovers from its log.
        os.kill(connection.get_server_pid(), signal.SIGKILL)
        connection.terminate()
    else:
        old = await asyncio.to_thread(the, development.pid, pattern)
        os.kill(old, signal.SIGKILL)
        await asyncio.to_thread(
            until, lambda: not alive(old) and bool(found(development.pid, pattern) - {old}), f"another {what}"
        )
    with development.api() as api:
        await asyncio.to_thread(until, api.is_open, "everything is open again")


async def test_any_history_while_each_dies_alone(
    development: Development, door: Door, target: TargetDatabase
) -> None:
    """Credentials are asked for, renewed, revoked and end meanwhile; then all is as was promised."""
    seed = secrets.randbits(32)
    history = History(door, random.Random(seed))
    deaths = history.chance.sample(DEATHS, len(DEATHS))
    for step in range(STEPS):
        under_way = [asyncio.create_task(history.ask()) for _ in range(3)]
        if step % 6 == 5:
            await asyncio.sleep(history.chance.uniform(0, 0.05))
            await die(development, target, deaths.pop())
        await asyncio.gather(*under_way)

    async def settled() -> bool:
        """Whatever must end has ended, and there are as many users as leases."""
        there = await history.leases()
        ended = not there & history.ending.keys() and not any("/brief/" in lease for lease in there)
        return ended and {name[-24:] for name in await target.users()} == {lease[-24:] for lease in there}

    # A target that was away is left alone for up to a minute.
    await soon(settled, 120)
    there = await history.leases()
    assert history.live.keys() <= there, seed
    for lease, (user, password) in {**history.live, **history.unknown, **history.ending}.items():
        assert await target.opens(user, password) == (lease in there), (seed, lease)
    with development.api() as api:
        verdict = api.call("POST", "sys/audit/verify", {"state": True})["data"]
    assert verdict["ok"], (seed, verdict)
