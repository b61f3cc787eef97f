"""Connections to one Redis server: a new one for each use, some at once, and errors that become ours.

Nothing of the environment takes part, and each connection is made to an address that was checked
(``engines/outbound.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from secrethub.engines.database.place import tls_context
from secrethub.engines.database.redis_rules import parse_place
from secrethub.engines.database.target import HeldUp, Setup, WrongPassword
from secrethub.engines.outbound import allowed_addresses
from secrethub.engines.target_health import Busy
from secrethub.errors import InvalidRequest, Unavailable

_CONNECT_SECONDS = 5.0
_WAIT_SECONDS = 10.0
"""For a place among the connections."""
_ANSWER_SECONDS = 10.0
_MESSAGE = 200
_BUSY = "BUSY "
"""A script or a module's command takes long: nothing else is done until it has ended."""

_log = logging.getLogger(__name__)


class Link:
    """The connections to one configured server. Raises as :class:`~…target.Target` says."""

    def __init__(self, setup: Setup) -> None:
        """Prepare; nothing is connected to yet.

        Args:
            setup: of the target; its options were checked.
        """
        self._setup = setup
        self._place, _, _ = parse_place(setup.options)
        self._tls = tls_context(self._place, setup.options, setup.secrets)
        self._places = asyncio.Semaphore(setup.connections)

    def __repr__(self) -> str:
        return f"Link({self._setup.name!r})"

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Session]:
        """Lend a connection of ours.

        Raises:
            InvalidRequest: the server wants none of us, or refuses what is asked.
            HeldUp: it runs a script, and does nothing else meanwhile.
            Unavailable: it cannot be reached.
            TimeoutError: it did not answer; what was asked for may be done.
        """
        name = self._setup.name
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise Busy(f"all connections to {name} are in use") from None
        try:
            connection = await self.connect(self._setup.options["username"], self._setup.passwords)
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    with _translated(name):
                        yield Session(name, connection)
            finally:
                await _closed(connection)
        finally:
            self._places.release()

    async def connect(self, user: str, passwords: Sequence[str]) -> Connection:
        """Open a connection with the first of the passwords that is good.

        Raises:
            WrongPassword: none is.
            InvalidRequest: the address is not allowed.
            Unavailable: the server does not answer, or not now.
        """
        name, place = self._setup.name, self._place
        refused: WrongPassword | None = None
        for password in passwords:
            connection: Connection | None = None
            try:
                addresses = await allowed_addresses(
                    self._setup.node, place.host, place.port, secure=self._tls is not False
                )
                connection = _Pinned(str(addresses[0]), place.port, self._tls, user, password)
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await connection.connect()  # type: ignore[no-untyped-call]
            except AuthenticationError as exc:
                refused = WrongPassword(f"{name} refuses the name or the password")
                refused.__cause__ = exc
            except ResponseError as exc:
                raise _refused(f"{name} refuses the connection", exc) from exc
            except (RedisError, OSError, TimeoutError) as exc:
                raise Unavailable(f"{name} does not answer ({type(exc).__name__})") from exc
            else:
                return connection
            finally:
                if connection is not None and not connection.is_connected:
                    await _closed(connection)
        raise refused or InvalidRequest(f"{name} has no password")

    async def opens(self, user: str, password: str) -> bool:
        """Tell whether a user is let in with a password. Raises as :meth:`connect`."""
        try:
            connection = await self.connect(user, (password,))
        except WrongPassword:
            return False
        await _closed(connection)
        return True


class Session:
    """A connection in use."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection

    async def ask(self, *words: str) -> Any:
        """Return the answer of one command; texts are decoded."""
        await self._connection.send_command(*words)
        return await self._connection.read_response()

    async def keep(self, *words: str) -> None:
        """Have a password that was changed kept by a command.

        Raises:
            TimeoutError: it is not. Until a restart the new one is good all the same, afterwards the old one.
        """
        try:
            await self.ask(*words)
        except ResponseError as exc:
            _log.warning("%s: what was changed is not kept: %s", self._name, _told(exc))
            raise TimeoutError(f"{self._name} does not keep what was changed") from exc


class _Pinned(Connection):
    """A connection to an address, whose server has to prove the name that was looked up."""

    def __init__(self, address: str, port: int, tls: ssl.SSLContext | bool, user: str, password: str) -> None:
        super().__init__(
            host=address,
            port=port,
            username=user,
            password=password,
            decode_responses=True,
            protocol=2,
            retry_on_timeout=False,
        )
        self._tls = tls

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        return {**arguments, "ssl": self._tls} if self._tls is not False else arguments


async def _closed(connection: Connection) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except ResponseError as exc:
        raise _refused(f"{name} refuses", exc) from exc
    except (RedisError, OSError) as exc:
        # What was sent may still be done, so nobody may take it back at once.
        raise TimeoutError(f"{name} did not answer in time ({type(exc).__name__})") from exc


def _refused(what: str, exc: ResponseError) -> InvalidRequest | HeldUp:
    kind = HeldUp if str(exc).startswith(_BUSY) else InvalidRequest
    return kind(f"{what}: {_told(exc)}")


def _told(exc: ResponseError) -> str:
    return str(exc)[:_MESSAGE]
