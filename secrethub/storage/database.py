"""Connections to PostgreSQL, and the one boundary where driver errors become ours.

Reads and writes are different context managers; a write is one transaction that commits at its end.
Nothing here seals, retries or caches: a storage failure is :class:`~secrethub.errors.Unavailable`,
and the pool connects again by itself when the database is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from secrethub.errors import InvalidRequest, Misconfigured, Unavailable
from secrethub.ids import new_uuid

_SETTINGS = {
    # A process stopped in the middle of a transaction must not hold the freshness lock for ever.
    "idle_in_transaction_session_timeout": "5000",
    "statement_timeout": "9000",
    "lock_timeout": "7000",
    "jit": "off",
}
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
"""A server that stands still says nothing about its own time limits."""

FAILURES: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.PostgresIOError,
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
    TimeoutError,
)
"""Driver errors that mean "not now", as opposed to a defect of ours."""

_UNSTORABLE = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)
"""PostgreSQL keeps every text but the character U+0000."""


def asyncpg_url(url: str) -> str:
    """Return ``url`` in the spelling that asyncpg takes."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


def unavailable(exc: BaseException, message: str = "the database does not answer") -> Unavailable:
    """Return our error for a driver's ``exc``; its text stays in the log chain, not in the answer."""
    return Unavailable(f"{message} ({type(exc).__name__})")


async def _reset(connection: Any) -> None:
    """Leave no transaction behind. Sessions keep no other state of ours, so there is nothing to ask."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


class Database:
    """A process's connections to the cluster's database."""

    def __init__(self, url: str, *, size: int = 12) -> None:
        """Prepare without connecting.

        Args:
            url: ``postgresql://…``.
            size: connections at most.
        """
        self._url = asyncpg_url(url)
        self._size = size
        self.name = f"secrethub {new_uuid()}"
        """What the server calls every connection (``application_name``): no other process has one like it."""
        self._settings = {**_SETTINGS, "application_name": self.name}
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening: asyncio.Task[asyncpg.Pool[Any]] | None = None

    def __repr__(self) -> str:
        return f"Database(size={self._size})"

    async def connect(self) -> asyncpg.Connection[Any]:
        """Open a connection outside the pool; the caller closes it.

        Raises:
            Unavailable: the server does not answer.
        """
        try:
            return await asyncpg.connect(
                self._url,
                server_settings=self._settings,
                timeout=_CONNECT_SECONDS,
                command_timeout=_ANSWER_SECONDS,
            )
        except FAILURES as exc:
            raise unavailable(exc) from exc

    async def _opened(self) -> asyncpg.Pool[Any]:
        """Return the pool. All who wait for it share one attempt, and its failure."""
        if self._pool is not None:
            return self._pool
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="database-open")
        return await asyncio.shield(self._opening)

    async def _open(self) -> asyncpg.Pool[Any]:
        pool = await asyncpg.create_pool(
            self._url,
            min_size=1,
            max_size=self._size,
            server_settings=self._settings,
            timeout=_CONNECT_SECONDS,
            command_timeout=_ANSWER_SECONDS,
            reset=_reset,
        )
        try:
            if await pool.fetchval("SHOW synchronous_commit") == "off":
                raise Misconfigured("synchronous_commit is off: the ledger could lose what was answered")
        except BaseException:
            pool.terminate()
            raise
        self._pool = pool
        return pool

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lend a connection; one whose answer did not come in time is not used again."""
        pool = await self._opened()
        async with pool.acquire(timeout=_ANSWER_SECONDS) as connection:
            try:
                yield connection  # type: ignore[misc]
            except TimeoutError:
                connection.terminate()
                raise

    @asynccontextmanager
    async def read(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lend a connection for reading, each statement on its own snapshot.

        Raises:
            Unavailable: the database does not answer.
            InvalidRequest: a text cannot be stored.
        """
        try:
            async with self._lent() as connection:
                yield connection
        except FAILURES as exc:
            raise unavailable(exc) from exc
        except _UNSTORABLE as exc:
            raise InvalidRequest("a text holds a character that cannot be stored") from exc

    async def once(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Run one statement that is a transaction by itself, in one round trip, and return its rows.

        Raises:
            Unavailable: the database does not answer; the outcome is unknown.
            InvalidRequest: a text cannot be stored.
        """
        async with self.read() as connection:
            return list(await connection.fetch(statement, *values))

    @asynccontextmanager
    async def write(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lend a connection inside one transaction, committed when the block ends without an error.

        Raises:
            Unavailable: the database does not answer. When it was lost during the commit the
                outcome is unknown and the message says so.
            InvalidRequest: a text cannot be stored.
        """
        committing = False
        try:
            async with self._lent() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield connection
                except TimeoutError:
                    raise
                except BaseException:
                    if not connection.is_closed():
                        await transaction.rollback()
                    raise
                committing = True
                await transaction.commit()
        except FAILURES as exc:
            message = "the database was lost while committing; the outcome is unknown"
            raise unavailable(exc, message if committing else "the database does not answer") from exc
        except _UNSTORABLE as exc:
            raise InvalidRequest("a text holds a character that cannot be stored") from exc

    async def close(self) -> None:
        """Close every connection, waiting briefly for those in use."""
        if self._opening is not None:
            with contextlib.suppress(Exception):
                await self._opening
        if self._pool is not None:
            try:
                # Not wait_for(), which loses a cancellation that comes together with the end.
                async with asyncio.timeout(5):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()
            self._pool = None
