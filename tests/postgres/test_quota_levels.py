"""Budgets of quotas: whatever processes ask for at the same time, nothing is given twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from secrethub.engines.quotas import Budget, Quota
from secrethub.errors import QuotaExceeded
from secrethub.storage.database import Database
from secrethub.storage.quota_levels import Ask, Share, exchange, forget
from tests.gateway.behind import sql

SLOW = 1e-6
"""Requests a second: nothing comes back while a test runs."""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The process's database."""
    database = Database(database_url)
    yield database
    await database.close()


def ask(key: str = "k", *, want: float = 0, back: float = 0, need: float = 0, **more: float) -> Ask:
    """What a process says of a budget of 100."""
    known = {"rate": SLOW, "burst": 100.0, "block": 0.0, **more}
    return Ask(key=key, want=float(want), back=float(back), need=float(need), **known)


async def settle(database: Database, *asks: Ask) -> dict[str, Share]:
    """Exchange in a transaction of its own."""
    async with database.write() as connection:
        return await exchange(connection, asks)


async def test_shares_are_given_back_and_debts_paid(database: Database) -> None:
    """What is given, given back and owed adds up to the budget."""
    first = (await settle(database, ask(want=30)))["k"]
    assert (first.granted, first.level, first.blocked) == (30, 70, 0)
    back = (await settle(database, ask(back=10, want=0)))["k"]
    assert (back.granted, back.level) == (0, pytest.approx(80))
    everything = (await settle(database, ask(want=500)))["k"]
    assert (everything.granted, everything.level) == (80, pytest.approx(0, abs=0.01))
    debt = (await settle(database, ask(back=-7, want=5)))["k"]
    assert (debt.granted, debt.level) == (0, pytest.approx(-7, abs=0.01))
    paid = (await settle(database, ask(back=20, want=5)))["k"]
    assert (paid.granted, paid.level) == (5, pytest.approx(8, abs=0.01))


async def test_a_budget_is_never_more_than_whole(database: Database) -> None:
    """Giving back more than was taken makes nobody rich, on a new row neither."""
    assert (await settle(database, ask(back=50, want=500)))["k"].granted == 100
    assert (await settle(database, ask(back=5000, want=500)))["k"].granted == 100


async def test_a_debt_of_a_new_budget_counts(database: Database) -> None:
    """What was spent on credit before there was a row is paid by it."""
    first = (await settle(database, ask(back=-20, want=500)))["k"]
    assert (first.granted, first.level) == (80, 0)


async def test_a_block_holds_for_everybody(database: Database) -> None:
    """Once it was not enough, nothing is given to anybody until the block ends."""
    blocked = (await settle(database, ask(want=150, need=150, block=600.0)))["k"]
    assert blocked.granted == 100
    assert blocked.blocked > 500
    after = (await settle(database, ask(back=100, want=1, need=1, block=600.0)))["k"]
    assert after.granted == 0
    assert after.blocked > 500


@pytest.mark.parametrize("seed", range(3))
async def test_many_at_once(database: Database, seed: int) -> None:
    """However many processes take and give back at once, no more is out than the budget."""
    dice = random.Random(seed)  # the same every time
    keys = ["a", "b", "c"]
    spent = dict.fromkeys(keys, 0.0)

    async def process() -> None:
        held = dict.fromkeys(keys, 0.0)
        for _ in range(12):
            chosen = dice.sample(keys, dice.randint(1, 3))
            for key in chosen:
                used = dice.randint(0, int(held[key]))
                spent[key] += used
                held[key] -= used
            asks = [ask(key, want=dice.randint(0, 20), back=held[key]) for key in chosen]
            for key, share in (await settle(database, *asks)).items():
                held[key] = share.granted

    await asyncio.gather(*(process() for _ in range(6)))
    for key in keys:
        left = (await settle(database, ask(key, want=1000)))[key].granted
        assert spent[key] + left <= 100, key


@pytest.mark.parametrize("seed", range(8))
async def test_one_process_admits_exactly_the_budget(database: Database, seed: int) -> None:
    """However its requests fall before, and into, its exchanges."""
    dice = random.Random(seed)
    quota = Quota(
        name="q",
        path="",
        mount="",
        role="",
        uuid="q",
        rate=30_000,
        interval=10**7,
        block_interval=0,
        group_by="none",
    )
    budget = Budget("k", quota)

    def admitted(requests: int) -> int:
        count = 0
        for _ in range(requests):
            with contextlib.suppress(QuotaExceeded):
                count += budget.spend(0.0)  # whoever must wait comes again
        return count

    total = 0
    for _ in range(60):
        total += admitted(dice.randint(0, 6))
        asked = budget.ask()
        budget.lend()
        total += admitted(dice.randint(0, 6))
        budget.settle((await settle(database, asked))["k"], 0.0)
    assert total == 30


async def test_old_budgets_go(database: Database, database_url: str) -> None:
    """A budget that has long been whole again leaves no row behind."""
    await settle(database, ask("old", rate=1000.0), ask("young"))
    await sql(database_url, "UPDATE quota_levels SET expires_at = now() - interval '1s' WHERE key = 'old'")
    async with database.write() as connection:
        await forget(connection)
    assert [row["key"] for row in await sql(database_url, "SELECT key FROM quota_levels")] == ["young"]
