"""Connections to one PostgreSQL server: bounded, and the one place where its errors become ours.

Nothing of the environment takes part, and each connection is made to an address that was checked
(``engines/outbound.py``). Changes of roles are made one at a time: two transactions that grant rights on the
same object fail each other with "tuple concurrently updated". So ours, of all gateways, wait for one another
by an advisory lock at the target, and whoever else does it there makes us try again. Every user of the
target can take that lock, so it is nothing that has to be had.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from secrethub.engines.database.place import tls_context
from secrethub.engines.database.postgresql_place import parse_place
from secrethub.engines.database.target import HeldUp, Setup, WrongPassword
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
_TURN_TAKEN = """SELECT EXISTS (
    SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND (l.classid::bigint << 32) | l.objid::bigint = 7305086391846017
        AND a.usesysid IS DISTINCT FROM (SELECT oid FROM pg_roles WHERE rolname = current_user))"""
_WITHOUT_TURN_SECONDS = 60.0
"""For which nobody waits for a lock that a stranger holds."""
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
_HELD_UP = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""Of one statement, which gave up waiting: that says nothing of the server."""
_NOT_NOW = (
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
)
_OVERTAKEN = ("tuple concurrently updated", "tuple concurrently deleted")
_MESSAGE = 200

_log = logging.getLogger(__name__)


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
        self._tls = tls_context(self._place, setup.options, setup.secrets)
        self._places = asyncio.Semaphore(setup.connections)
        self._free: list[_Held] = []
        self._closed = False
        self._without_turn = 0.0

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
        self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]], *, lock_milliseconds: int
    ) -> T:
        """Do something in one transaction, while nobody else changes roles in this way.

        Args:
            work: may be done several times; what was done before was taken back.
            lock_milliseconds: that each statement waits for what others hold.

        Raises:
            HeldUp: it waited in vain.
        """

        async def once() -> T:
            async with self.lent() as connection, connection.transaction():
                await connection.execute(f"{self._turn()}; SET LOCAL lock_timeout = {lock_milliseconds}")
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

        async def once() -> None:
            # One message is one transaction, unless it says otherwise. Each on lines of its own: one may end
            # with a comment.
            all_of_it = (*_UNSYNCED, *alone, self._turn(), *rest, *_SYNCED) if rest else alone
            script = "\n;\n".join(all_of_it)
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
            except HeldUp:
                if time.monotonic() < self._without_turn or not await self._is_turn_taken():
                    raise
                _log.warning("%s: somebody else holds the lock of those who change roles", self._setup.name)
                self._without_turn = time.monotonic() + _WITHOUT_TURN_SECONDS
        raise Unavailable(f"others change rights at {self._setup.name} without a pause")

    def _turn(self) -> str:
        return _TURN if time.monotonic() >= self._without_turn else "SELECT 1"

    async def _is_turn_taken(self) -> bool:
        """Tell whether somebody holds the lock who is not us, such as one of the users that we made."""
        async with self.lent() as connection:
            return bool(await connection.fetchval(_TURN_TAKEN))

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
    except _HELD_UP as exc:
        raise HeldUp(f"{name} waited too long for what others there hold ({type(exc).__name__})") from exc
    except asyncpg.OutOfMemoryError as exc:
        # One user can own more than one transaction can lock.
        raise HeldUp(f"{name} has no memory for so many locks or so much work ({exc.sqlstate})") from exc
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
