"""Whatever happens, in any order: a live lease opens the target, no other does, and nobody is left over."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from cluster.postgres import EmbeddedPostgres
from secrethub.storage.migrate import upgrade
from tests.folders import traversable
from tests.gateway.behind import ledger_is_good, until
from tests.gateway.conftest import node_settings
from tests.gateway.database_target import TargetDatabase, target_database
from tests.gateway.databases import CREATION, MOUNT
from tests.gateway.killing import call
from tests.gateway.test_outage import Server as Database
from tests.gateway.whole_server import Server, mortal

STEPS = 40
BRIEF = "2s"
OPERATIONS = {
    "issue": 8,
    "brief": 4,
    "renew": 4,
    "revoke": 4,
    "kill the server": 1,
    "doom the server": 3,
    "kill its database": 1,
    "take the target away": 1,
    "bring the target back": 3,
}
"""How often each, among all."""


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    """Core's own PostgreSQL, which dies as well."""
    with traversable() as folder:
        embedded = EmbeddedPostgres(folder, durable=False)
        started = Database(embedded, await embedded.start())
        await upgrade(started.url)
        try:
            yield started
        finally:
            await embedded.stop()
            embedded.remove()


@pytest.fixture
async def target(postgres_url: str) -> AsyncIterator[TargetDatabase]:
    """A target on another server."""
    async with target_database(postgres_url) as made:
        await made.sql("CREATE TABLE things AS SELECT 1 AS one")
        yield made


@pytest.fixture
async def server(database: Database, target: TargetDatabase, tmp_path: Path) -> AsyncIterator[Server]:
    """A whole server with a connection and two roles, one of them for two seconds."""
    settings = msgspec.structs.replace(
        node_settings(tmp_path, database.url), outbound_networks=("127.0.0.1/32",)
    )
    async with mortal(settings) as started:
        await started.initialise(3, 3)
        await started.unseal()
        await call(started, "POST", f"{MOUNT}/config/db", target.config())
        for name, ttl in (("app", "1h"), ("brief", BRIEF)):
            role = {"db_name": "db", "creation_statements": CREATION, "default_ttl": ttl, "max_ttl": "24h"}
            await call(started, "POST", f"{MOUNT}/roles/{name}", role)
        yield started


@dataclass
class History:
    """Does one thing after another, and keeps what was promised.

    Attributes:
        live: users and passwords by lease, for which nobody has asked for an end.
        ending: likewise, which must end: revoked, or for two seconds only.
        unknown: likewise, whose end was asked for without an answer.
        log: what was done.
    """

    server: Server
    database: Database
    target: TargetDatabase
    chance: random.Random
    live: dict[str, tuple[str, str]] = field(default_factory=dict)
    ending: dict[str, tuple[str, str]] = field(default_factory=dict)
    unknown: dict[str, tuple[str, str]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    away: bool = False

    async def step(self) -> None:
        """Do something."""
        name = self.chance.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        self.log.append(name)
        if name == "issue":
            await self.issue("app", self.live)
        elif name == "brief":
            await self.issue("brief", self.ending)
        elif name in {"renew", "revoke"} and self.live:
            await self.end_or_renew(name, self.chance.choice(list(self.live)))
        elif name == "doom the server":
            self.server.doom(self.chance.randrange(1, 6))
        elif name == "kill the server":
            self.server.kill()
        elif name == "kill its database":
            await self.database.kill()
            await self.database.start_again()
        elif name == "take the target away" and not self.away:
            self.away = True
            await self.target.go_away()
        elif name == "bring the target back":
            await self.back()
        if not self.server.alive:
            await self.revive()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask; return the answer's body, or None when it did not work or there was no answer."""
        try:
            answer = await self.server.call(method, path, json=body)
        except httpx2.TransportError:
            return None
        return (answer.json() if answer.content else {}) if answer.is_success else None

    async def issue(self, role: str, kept: dict[str, tuple[str, str]]) -> None:
        made = await self.ask("GET", f"{MOUNT}/creds/{role}")
        if made is not None:
            kept[made["lease_id"]] = (made["data"]["username"], made["data"]["password"])

    async def end_or_renew(self, name: str, lease: str) -> None:
        if name == "renew":
            await self.ask("PUT", "sys/leases/renew", {"lease_id": lease, "increment": "2h"})
            return
        done = await self.ask("PUT", "sys/leases/revoke", {"lease_id": lease})
        (self.unknown if done is None else self.ending)[lease] = self.live.pop(lease)

    async def back(self) -> None:
        if self.away:
            self.away = False
            await self.target.come_back()

    async def revive(self) -> None:
        """Start the server again, and open it."""
        await self.server.spared()
        await self.server.ended()
        await self.server.start()
        await self.server.unseal()

    async def leases(self) -> set[str]:
        """Return the leases that there are."""
        found = set()
        for role in ("app", "brief"):
            answer = await self.server.call("LIST", f"sys/leases/lookup/{MOUNT}/creds/{role}")
            if answer.status_code != 404:
                assert answer.status_code == 200, answer.text
                found |= {f"{MOUNT}/creds/{role}/{key}" for key in answer.json()["data"]["keys"]}
        return found


async def test_any_history(server: Server, database: Database, target: TargetDatabase) -> None:
    """Issue, renew, revoke, expiry, and the death of anything, at random; then all is as was promised."""
    seed = secrets.randbits(32)
    history = History(server, database, target, random.Random(seed))
    for _ in range(STEPS):
        await history.step()
    if not await server.spared():
        await history.revive()
    await history.back()
    told = (seed, history.log)

    async def settled() -> bool:
        """Whatever must end has ended, and there are as many users as leases."""
        there = await history.leases()
        ended = not there & history.ending.keys() and not any("/brief/" in lease for lease in there)
        return ended and {name[-24:] for name in await target.users()} == {lease[-24:] for lease in there}

    try:
        # A target that was away is left alone for up to a minute.
        await until(settled, 120)
    except TimeoutError:
        raise AssertionError((told, await history.leases(), history.ending, await target.users())) from None
    there = await history.leases()
    assert history.live.keys() <= there, told
    for lease, (user, password) in {**history.live, **history.unknown, **history.ending}.items():
        assert await target.opens(user, password) == (lease in there), (told, lease)
    await ledger_is_good(server)
