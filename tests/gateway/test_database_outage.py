"""A target's server is stopped and stays away for longer than the ends of leases are tried."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.postgres import EmbeddedPostgres
from secrethub.engines.lease_ending import targets_of
from secrethub.leases.retry import Retries
from tests.gateway.behind import entries, ledger_is_good, sql, until
from tests.gateway.conftest import Node
from tests.gateway.database_target import CANARY, TargetDatabase, target_database
from tests.gateway.databases import MOUNT, creds, ready, role
from tests.gateway.kv import ok
from tests.gateway.shell import Cli
from tests.gateway.test_outage import folder

__all__ = ["folder", "ready"]  # the fixtures

_ATTEMPTS = 4


@pytest.fixture
async def mortal(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL server of a target's own."""
    server = EmbeddedPostgres(folder, durable=False)
    try:
        yield server
    finally:
        await server.stop()
        server.remove()


@pytest.fixture
async def target(mortal: EmbeddedPostgres) -> AsyncIterator[TargetDatabase]:
    """A target on it, with a table of things."""
    async with target_database(await mortal.start()) as made:
        await made.sql("CREATE TABLE things AS SELECT 1 AS one")
        yield made


async def test_a_target_away_for_longer_than_ends_are_tried(
    ready: Node, mortal: EmbeddedPostgres, target: TargetDatabase, tmp_path: Path
) -> None:
    """Issues are refused; ends are tried, then dead letters with reasons; retried or forced, nobody stays."""
    targets_of(ready.process.core).retries = Retries(first=0.05, longest=0.2, attempts=_ATTEMPTS)
    url, cli = ready.settings.database_url, Cli(ready, tmp_path)
    kept, revoked = await creds(ready), await creds(ready)
    await ok(ready, "POST", f"{MOUNT}/roles/brief", role(default_ttl="1s"))
    # Ends are tried once the target is away and all that is to end is there: its rests are for all of it.
    await ready.tree.workplace.take_back()
    brief = await creds(ready, name="brief")
    await target.go_away()
    await mortal.stop()

    # Who asks for a user is told so: three times by the target's silence, then at once and leaving no trace.
    told = [await ready.call("GET", f"{MOUNT}/creds/app") for _ in range(20)]
    assert {(answer.status_code, answer.json()["code"]) for answer in told} == {(503, "unavailable")}
    assert "it is asked again in a moment" in told[-1].text
    assert CANARY not in "".join(answer.text for answer in told)
    assert (await cli.json("engine", "connection", "health", "db"))["breaker"] != "closed"
    intents = {row["id"] for row in await sql(url, "SELECT id FROM leases WHERE state = 'intent'")}
    assert len(intents) <= 4

    # One lease ends by itself and one by order. Both are tried, and given up at last.
    assert "in a moment" in await cli("lease", "revoke", revoked["lease_id"])
    await ready.tree.workplace.lend(ready.process.core)
    lost = {brief["lease_id"], revoked["lease_id"]}

    async def given_up() -> bool:
        rows = await sql(url, "SELECT id FROM leases WHERE due_at IS NULL")
        return {row["id"] for row in rows} == lost | intents

    await until(given_up, 60)
    assert {one["lease_id"] for one in await cli.json("lease", "dead")} == lost | intents
    for row in await sql(url, "SELECT attempts, due_at, error FROM leases WHERE id = ANY($1)", list(lost)):
        assert (row["attempts"], row["due_at"], bool(row["error"])) == (_ATTEMPTS, None, True)
    shown = await cli("lease", "dead")
    assert "does not answer" in shown
    assert CANARY not in shown
    for lease in lost:
        ends = await entries(url, operation="lease.end", path=lease)
        assert [one["outcome"] for one in ends] == ["failed", "given up"]

    # One is forgotten while its target is away, the others are tried again once that is back.
    await cli("lease", "revoke", revoked["lease_id"], "--prefix", "--force")
    await mortal.start()
    await target.come_back()
    users = {one["data"]["username"] for one in (kept, revoked, brief)}
    assert await target.users() == users
    assert await cli.json("lease", "dead", "--retry") == {"leases": 1 + len(intents)}

    async def ended() -> bool:
        return not await sql(url, "SELECT id FROM leases WHERE id <> $1", kept["lease_id"])

    await until(ended, 60)
    assert (await cli.json("engine", "connection", "health", "db", "--check"))["healthy"] is True
    stray = [revoked["data"]["username"]]
    assert (await cli.json("engine", "strays", "db"))["strays"] == stray
    assert (await cli.json("engine", "strays", "db", "--remove"))["removed"] == stray

    # Nobody is left but whoever has a lease, which is as good as before.
    assert await target.users() == {kept["data"]["username"]}
    assert await target.opens(kept["data"]["username"], kept["data"]["password"])
    await creds(ready)
    await ledger_is_good(ready, state=True)
