"""Locks that are held longer than a transaction: rows with an owner, a deadline and a fencing number.

The number of a lock grows with every new holder and survives its release, so what a former holder
still writes can be told from what the present one writes: whoever does something under a lock passes
its number on, and the receiver refuses numbers below one that it has seen.

Time is the database's alone. Every function is one statement, so two callers never both succeed, and
each can be repeated after a lost answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from secrethub.errors import InvalidRequest
from secrethub.storage.database import Database

MAX_TTL = 86_400.0
"""Seconds for which a lock may be taken at once; renew it to hold it longer."""

_MAX_NAME = 200

_ACQUIRE = """
INSERT INTO locks AS held (name, owner, fencing, expires_at)
VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 second')
ON CONFLICT (name) DO UPDATE SET
    fencing = held.fencing + CASE
        WHEN held.owner = excluded.owner AND held.expires_at > clock_timestamp() THEN 0 ELSE 1 END,
    owner = excluded.owner,
    expires_at = excluded.expires_at
WHERE held.owner IS NULL OR held.owner = excluded.owner OR held.expires_at <= clock_timestamp()
RETURNING fencing, expires_at
"""

_RENEW = """
UPDATE locks SET expires_at = clock_timestamp() + $4 * interval '1 second'
WHERE name = $1 AND owner = $2 AND fencing = $3 AND expires_at > clock_timestamp()
RETURNING expires_at
"""

_RELEASE = """
UPDATE locks SET owner = NULL, expires_at = clock_timestamp()
WHERE name = $1 AND owner = $2 AND fencing = $3
RETURNING true
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldLock:
    """A lock as its holder knows it.

    Attributes:
        name: what is locked.
        owner: the holder, unique among everyone who may want the lock.
        fencing: above every number that an earlier holder of this lock was given.
        expires_at: when it ends unless renewed, by the database's clock.
    """

    name: str
    owner: str
    fencing: int
    expires_at: datetime


async def acquire(database: Database, name: str, owner: str, ttl: float) -> HeldLock | None:
    """Take a lock that is free, has expired, or is the owner's already.

    Args:
        database: where.
        name: what to lock.
        owner: who wants it. Asked again by its holder, the lock keeps its number and runs anew.
        ttl: seconds, up to :data:`MAX_TTL`.

    Returns:
        The lock, or None when somebody else holds it.

    Raises:
        InvalidRequest: no name, no owner, or an impossible time.
        Unavailable: the database does not answer; the lock may have been taken.
    """
    _check(name, owner, ttl)
    async with database.write() as connection:
        row = await connection.fetchrow(_ACQUIRE, name, owner, ttl)
    if row is None:
        return None
    return HeldLock(name=name, owner=owner, fencing=row["fencing"], expires_at=row["expires_at"])


async def renew(database: Database, lock: HeldLock, ttl: float) -> HeldLock | None:
    """Let a lock run for ``ttl`` seconds from now.

    Returns:
        The lock with its new deadline, or None when it has expired or is another's: then stop.

    Raises:
        InvalidRequest: an impossible time.
        Unavailable: the database does not answer.
    """
    _check(lock.name, lock.owner, ttl)
    async with database.write() as connection:
        until = await connection.fetchval(_RENEW, lock.name, lock.owner, lock.fencing, ttl)
    if until is None:
        return None
    return HeldLock(name=lock.name, owner=lock.owner, fencing=lock.fencing, expires_at=until)


async def release(database: Database, lock: HeldLock) -> bool:
    """Give a lock back; False when it was not held any more.

    Raises:
        Unavailable: the database does not answer; the lock then ends by itself.
    """
    async with database.write() as connection:
        return bool(await connection.fetchval(_RELEASE, lock.name, lock.owner, lock.fencing))


def _check(name: str, owner: str, ttl: float) -> None:
    if not 0 < len(name) <= _MAX_NAME or not 0 < len(owner) <= _MAX_NAME:
        raise InvalidRequest(f"a lock's name and owner have 1 to {_MAX_NAME} characters")
    if not 0 < ttl <= MAX_TTL:
        raise InvalidRequest(f"a lock is taken for more than 0 and at most {MAX_TTL:g} seconds")
