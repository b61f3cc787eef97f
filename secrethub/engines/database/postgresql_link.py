"""Connections to one PostgreSQL server: bounded, and the one place where its errors become ours.

Nothing of the environment takes part, and each connection is made to an address that was checked
(``engines/outbound.py``). Changes of roles are made one at a time: two transactions that grant rights on the
same object fail each other with "tuple concurrently updated". So ours, of all gateways, wait for one another
by an advisory lock at the target, and whoever else does it there makes us try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from secrethub.engines.database.postgresql_place import parse_place, tls_context
from secrethub.engines.database.target import Setup, WrongPassword
from secrethub.engines.outbound import allowed_addresses
from secrethub.engines.target_health import Busy
from secrethub.errors import InvalidRequest, SecretHubError, Unavailable

T = TypeVar("T")

_CONNECT_SECONDS = 5.0
_WAIT_SECONDS = 10.0
"""For a connection that others have."""
_ANSWER_SECONDS = 12.0
_ATTEMPTS = 8
_UNSYNCED = ("BEGIN", "SET LOCAL synchronous_commit = off")
_SYNCED = ("COMMIT", "SELECT pg_current_xact_id()")
_TURN = "SELECT pg_advisory_xact_lock(7305086391846017)"
"""Waits until nobody else changes roles in this way."""
_OF_ONE_ROLE = re.compile(r"\s*(?:CREATE|ALTER)\s+(?:ROLE|USER)\b", re.IGNORECASE)
_SETTINGS = {
    "application_name": "secrethub",
    # Whatever an operator's statement does, it ends well before its intent is undone.
    "statement_timeout": "10000",
    "lock_timeout": "8000",
    "idle_in_transaction_session_timeout": "10000",
    # The quotes of statements are read as the server reads them.
    "standard_conforming_strings": "on",
}
_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_NOT_NOW = (
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
)
_OVERTAKEN = ("tuple concurrently updated", "tuple concurrently deleted")
_MESSAGE = 200


@dataclass(frozen=True, slots=True)
class _Held:
    """A connection, and when it was made, on a monotonic clock."""

    connection: asyncpg.Connection[Any]
    born: float


class Link:
    """The connections to one configured server. Raises as :class:`~…target.Target` says."""

    def __init__(self, setup: Setup) -> None:
        """Prepare; nothing is connected to yet.

        Args:
            setup: of the target; its options were checked.
        """
        self._setup = setup
        self._place, _, _ = parse_place(setup.options["connection_url"])
        self._tls = tls_context(
            self._place,
            setup.options.get("tls_ca", ""),
            setup.options.get("tls_certificate", ""),
            setup.secrets.get("private_key", ""),
        )
        self._places = asyncio.Semaphore(setup.connections)
        self._free: list[_Held] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"Link({self._setup.name!r})"

    def close(self) -> None:
        """Let go of every connection; one in use goes when it is given back."""
        self._closed = True
        for held in self._free:
            held.connection.terminate()
        self._free.clear()

    async def connect(self, user: str, passwords: Sequence[str]) -> asyncpg.Connection[Any]:
        """Open a connection with the first of the passwords that is good.

        Raises:
            WrongPassword: none is.
            InvalidRequest: the address is not allowed, or the server wants none of us.
            Unavailable: the server does not answer.
        """
        place, name = self._place, self._setup.name
        refused: WrongPassword | None = None
        for password in passwords:
            try:
                addresses = await allowed_addresses(
                    self._setup.node, place.host, place.port, secure=place.proven(self._setup.options)
                )
                return await asyncpg.connect(
                    host=[str(address) for address in addresses],
                    port=[place.port] * len(addresses),
                    user=user,
                    password=password,
                    database=place.database or user,
                    ssl=self._tls,
                    timeout=_CONNECT_SECONDS,
                    command_timeout=_ANSWER_SECONDS,
                    server_settings=_SETTINGS,
                    target_session_attrs=SessionAttribute.any,
                )
            except asyncpg.InvalidAuthorizationSpecificationError as exc:
                refused = WrongPassword(f"{name} refuses the name or the password ({exc.sqlstate})")
                refused.__cause__ = exc
                continue
            except (*_LOST, *_NOT_NOW, TimeoutError) as exc:
                raise Unavailable(f"{name} does not answer ({type(exc).__name__})") from exc
            except asyncpg.PostgresError as exc:
                raise InvalidRequest(f"{name} refuses the connection: {_told(exc, ())}") from exc
        raise refused or InvalidRequest(f"{name} has no password")

    @asynccontextmanager
    async def lent(self, hide: Sequence[str] = ()) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lend a connection.

        Args:
            hide: texts that no message may have.
        """
        name = self._setup.name
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise Busy(f"all connections to {name} are in use") from None
        try:
            held = await self._taken()
            connection = held.connection
            try:
                with _translated(name, hide):
                    yield connection
            except BaseException as exc:
                if not isinstance(exc, SecretHubError) or connection.is_in_transaction():
                    connection.terminate()
                raise
            finally:
                self._give_back(held)
        finally:
            self._places.release()

    async def change(
        self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]], hide: Sequence[str] = ()
    ) -> T:
        """Do something in one transaction, while nobody else changes roles in this way.

        Args:
            work: may be done several times; what was done before was taken back.
            hide: texts that no message may have.
        """

        async def once() -> T:
            async with self.lent(hide) as connection, connection.transaction():
                await connection.execute(_TURN)
                return await work(connection)

        return await self._again(once)

    async def run(self, statements: Sequence[str], hide: Sequence[str] = ()) -> None:
        """Run statements in one transaction and one round trip, those that need it while nobody else does.

        Making a role needs it not, and takes the server longest: it tries the password against the empty one.
        Nor does waiting for the disk, so the transaction is synced by an empty one that follows it.

        Args:
            statements: filled in, each one statement.
            hide: texts that no message may have.
        """
        alone = list(itertools.takewhile(_OF_ONE_ROLE.match, statements))
        rest = statements[len(alone) :]
        # One message is one transaction, unless it says otherwise. Each on lines of its own: one may end with
        # a comment.
        script = "\n;\n".join((*_UNSYNCED, *alone, _TURN, *rest, *_SYNCED) if rest else alone)

        async def once() -> None:
            async with self.lent(hide) as connection:
                try:
                    await connection.execute(script)
                except asyncpg.PostgresError:
                    if connection.is_in_transaction():
                        await connection.execute("ROLLBACK")
                    raise

        await self._again(once)

    async def _again(self, once: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                return await once()
            except _Overtaken:
                await asyncio.sleep(random.random() * 0.02 * 2**attempt)  # noqa: S311 - jitter
        raise Unavailable(f"others change rights at {self._setup.name} without a pause")

    async def _taken(self) -> _Held:
        while self._free:
            held = self._free.pop()
            if not held.connection.is_closed() and not self._old(held):
                return held
            held.connection.terminate()
        made = await self.connect(self._setup.options["username"], self._setup.passwords)
        return _Held(made, time.monotonic())

    def _give_back(self, held: _Held) -> None:
        if self._closed:
            held.connection.terminate()
        elif not held.connection.is_closed():
            self._free.append(held)

    def _old(self, held: _Held) -> bool:
        return 0 < self._setup.lifetime <= time.monotonic() - held.born


class _Overtaken(SecretHubError):
    """Somebody else changed the same row of the target's catalogue at the same time."""


@contextlib.contextmanager
def _translated(name: str, hide: Sequence[str]) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except (*_LOST, TimeoutError) as exc:
        # What was sent may still be done, so nobody may take it back at once.
        raise TimeoutError(f"{name} did not answer in time ({type(exc).__name__})") from exc
    except asyncpg.DeadlockDetectedError as exc:
        raise _Overtaken from exc
    except _NOT_NOW as exc:
        raise Unavailable(f"{name} does not do it now ({type(exc).__name__})") from exc
    except asyncpg.InternalServerError as exc:
        if any(words in str(exc) for words in _OVERTAKEN):
            raise _Overtaken from exc
        raise InvalidRequest(f"{name} refuses: {_told(exc, hide)}") from exc
    except asyncpg.PostgresError as exc:
        raise InvalidRequest(f"{name} refuses: {_told(exc, hide)}") from exc


def _told(exc: asyncpg.PostgresError, hide: Sequence[str]) -> str:
    """Return what the server says, without what may be secret in it."""
    text = str(exc).partition("\n")[0]
    for part in hide:
        text = text.replace(part, "…")
    return f"{text[:_MESSAGE]} ({exc.sqlstate})"
