"""Leases while PostgreSQL is killed under load, and while a node's clock steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from secrethub.engines.kinds import engines
from tests.gateway.behind import ledger_is_good, sql, until
from tests.gateway.conftest import Node, node_settings, running
from tests.gateway.lease_engine import FolderEngine
from tests.gateway.leased import creds, files, gone, leased, place
from tests.gateway.test_outage import Server, folder, server

__all__ = ["folder", "leased", "place", "server"]  # the fixtures

_ROUNDS = 3
_WORK_SECONDS = 0.7


@pytest.fixture
async def stricken(server: Server, tmp_path: Path, place: Path) -> AsyncIterator[Node]:
    """A node that leases out files, on a PostgreSQL that may be killed."""
    kinds = {**engines(), "folder": FolderEngine(place)}
    async with running(node_settings(tmp_path, server.url), kinds) as node:
        await node.initialise()
        await node.unseal()
        assert (await node.call("POST", "sys/mounts/db", json={"type": "folder"})).status_code == 204
        yield node


@dataclass
class _Answered:
    """What was answered: leases with the longest increment that was, and what became of them."""

    renewed: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)


async def _live(node: Node, seen: _Answered, over: asyncio.Event) -> None:
    """Make leases, renew each ever longer, and end every other one, until it is over."""
    number = 0
    while not over.is_set():
        made = await node.call("GET", "db/creds/app")
        if made.status_code != 200:
            continue
        lease = made.json()["lease_id"]
        seen.renewed[lease] = 0
        for increment in range(4000, 4010):
            body = {"lease_id": lease, "increment": increment}
            if (await node.call("PUT", "sys/leases/renew", json=body)).status_code == 200:
                seen.renewed[lease] = increment
        number += 1
        if number % 2:
            seen.asked.add(lease)
            done = await node.call("PUT", "sys/leases/revoke", json={"lease_id": lease, "sync": True})
            if done.status_code == 204:
                seen.ended.add(lease)


async def _ready(node: Node) -> bool:
    answer = await node.call("GET", "sys/leases/top")
    return answer.status_code == 200


async def test_postgresql_killed_while_leases_are_made_renewed_and_ended(
    stricken: Node, server: Server, place: Path
) -> None:
    """What was answered holds: leases, renewals and ends; at the target nobody is left without a lease."""
    seen = _Answered()

    async def enough() -> bool:
        # Each of the four is about to end one at most.
        return bool(seen.ended) and len(seen.renewed) > len(seen.asked) + 4

    for _ in range(_ROUNDS):
        over = asyncio.Event()
        work = [asyncio.create_task(_live(stricken, seen, over)) for _ in range(4)]
        await asyncio.sleep(_WORK_SECONDS)
        await until(enough)
        await server.kill()
        over.set()
        await server.start_again()
        await asyncio.gather(*work)
        await until(lambda: _ready(stricken))
    # Intents are over, and claims and ends are anybody's again.
    unsettled = "WHERE state = 'intent' OR revoked_at IS NOT NULL"

    async def settled() -> bool:
        await sql(server.url, f"UPDATE leases SET due_at = now() {unsettled}")
        return not await sql(server.url, f"SELECT id FROM leases {unsettled}")

    await until(settled)
    rows = {row["id"]: row for row in await sql(server.url, "SELECT * FROM leases")}
    assert not seen.ended & rows.keys()
    # An end that was asked for and not answered may have happened.
    assert seen.renewed.keys() - seen.asked <= rows.keys()
    for lease, increment in seen.renewed.items():
        if increment and lease in rows:
            reached = (rows[lease]["expires_at"] - rows[lease]["renewed_at"]) // 1_000_000
            assert reached >= increment, lease
    assert files(place) == {lease.rpartition("/")[2] for lease in rows}
    await ledger_is_good(stricken)


@pytest.mark.parametrize("step", [86_400, -86_400])
async def test_a_step_of_a_nodes_clock_moves_no_deadline(leased: Node, place: Path, step: int) -> None:
    """A day ahead nothing ends early, a day behind nothing ends late, and renewals count as ever."""
    kept = await creds(leased)
    leased.clock.move(step)
    brief = await creds(leased, role="brief")
    renewed = await leased.call(
        "PUT", "sys/leases/renew", json={"lease_id": kept["lease_id"], "increment": 5000}
    )
    assert renewed.json()["lease_duration"] == 5000
    await gone(place, brief["data"]["username"])
    found = await leased.call("PUT", "sys/leases/lookup", json={"lease_id": kept["lease_id"]})
    assert 4900 < found.json()["data"]["ttl"] <= 5000
    (row,) = await sql(
        leased.settings.database_url,
        "SELECT expires_at - extract(epoch FROM now()) * 1000000 AS left FROM leases WHERE id = $1",
        kept["lease_id"],
    )
    assert 4900 < row["left"] / 1_000_000 <= 5000
    assert files(place) == {kept["data"]["username"]}
