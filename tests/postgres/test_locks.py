"""Locks in PostgreSQL have one holder each, and fencing numbers that only grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from actors.distributed_lock import DistributedLock
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.storage.database import Database
from secrethub.storage.locks import HeldLock


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database of this test's own."""
    database = Database(database_url, size=8)
    yield database
    await database.close()


@pytest.fixture
async def locks(database: Database) -> DistributedLock:
    """The actor under test, in this process."""
    return DistributedLock(database)


async def _expire(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute("UPDATE locks SET expires_at = clock_timestamp() - interval '1 second'")


async def test_one_holder_at_a_time(locks: DistributedLock) -> None:
    """A held lock is refused to others, and other names are free."""
    first = await locks.acquire("rotate", "a", 60)
    assert first is not None
    assert await locks.acquire("rotate", "b", 60) is None
    assert await locks.acquire("other", "b", 60) is not None


async def test_fencing_numbers_survive_release_and_expiry(locks: DistributedLock, database: Database) -> None:
    """Every new holder gets a larger number, whether the lock was given back or ran out."""
    numbers = []
    for owner in ("a", "b", "c"):
        lock = await locks.acquire("rotate", owner, 60)
        assert lock is not None
        numbers.append(lock.fencing)
        if owner == "a":
            assert await locks.release(lock)
        else:
            await _expire(database)
    assert numbers == [1, 2, 3]


async def test_repetition_is_harmless(locks: DistributedLock) -> None:
    """Asking again for one's own lock keeps its number; giving it back twice says so."""
    first = await locks.acquire("rotate", "a", 60)
    again = await locks.acquire("rotate", "a", 120)
    assert first is not None
    assert again is not None
    assert again.fencing == first.fencing
    assert again.expires_at > first.expires_at
    assert await locks.release(again)
    assert not await locks.release(again)


async def test_a_lost_lock_is_not_renewed(locks: DistributedLock, database: Database) -> None:
    """A lock that ran out, or is another's by now, cannot be renewed or released by its old holder."""
    old = await locks.acquire("rotate", "a", 60)
    assert old is not None
    assert await locks.renew(old, 60) is not None
    await _expire(database)
    assert await locks.renew(old, 60) is None
    new = await locks.acquire("rotate", "b", 60)
    assert new is not None
    assert await locks.renew(old, 60) is None
    assert not await locks.release(old)
    assert await locks.renew(new, 60) is not None


async def test_an_expired_lock_taken_again_by_its_owner_is_a_new_one(
    locks: DistributedLock, database: Database
) -> None:
    """After expiry even the same owner gets a new number: somebody may have acted in between."""
    old = await locks.acquire("rotate", "a", 60)
    await _expire(database)
    new = await locks.acquire("rotate", "a", 60)
    assert old is not None
    assert new is not None
    assert new.fencing == old.fencing + 1


async def test_a_race_has_one_winner(locks: DistributedLock) -> None:
    """Of many who ask at once, one gets the lock."""
    got = await asyncio.gather(*(locks.acquire("rotate", f"owner-{n}", 60) for n in range(16)))
    assert len([lock for lock in got if lock is not None]) == 1


@pytest.mark.parametrize(
    ("name", "owner", "ttl"),
    [("", "a", 1.0), ("x" * 201, "a", 1.0), ("x", "", 1.0), ("x", "a", 0.0), ("x", "a", 1e9)],
)
async def test_impossible_requests_are_refused(
    locks: DistributedLock, name: str, owner: str, ttl: float
) -> None:
    """Locks without a name or an owner, or for no time or too long a time, are refused."""
    with pytest.raises(InvalidRequest):
        await locks.acquire(name, owner, ttl)


async def test_a_lost_database_is_unavailable_not_free() -> None:
    """Without the database no lock is given and none is said to be free or taken."""
    locks = DistributedLock(Database("postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(Unavailable):
        await locks.acquire("rotate", "a", 60)
    lost = HeldLock(name="rotate", owner="a", fencing=1, expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(Unavailable):
        await locks.renew(lost, 60)
