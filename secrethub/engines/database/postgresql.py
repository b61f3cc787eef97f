"""PostgreSQL: users are roles with a SCRAM-SHA-256 verifier that is made here, and an end of their own.

``{{password}}`` in a statement is the verifier, so no password gets into the server's log. ``{{name}}`` and
``{{username}}`` are the role's name, ``{{expiration}}`` the instant at which the server refuses it by itself.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from secrethub.engines.database.place import SECRETS, own_secrets
from secrethub.engines.database.postgresql_ending import NAMES, end_users
from secrethub.engines.database.postgresql_link import Link
from secrethub.engines.database.postgresql_place import parse_place, shown_url
from secrethub.engines.database.scram import ITERATIONS, verifier
from secrethub.engines.database.statements import check_statements, render, split
from secrethub.engines.database.target import NewUser, Setup, Statements, WrongPassword
from secrethub.errors import InvalidRequest

_OPTIONS = frozenset(
    {
        "connection_url",
        "username",
        "tls_ca",
        "tls_certificate",
        "password_authentication",
        "scram_iterations",
    }
)
_SCRAM = "scram-sha-256"
_OLDEST = 14
_MOST_ITERATIONS = 1_000_000
_ROTATE = """ALTER ROLE "{{name}}" WITH PASSWORD '{{password}}'"""
_BAR = """ALTER ROLE "{{name}}" PASSWORD NULL"""
_RENEW = """ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'"""


class PostgresqlPlugin:
    """Plugin ``postgresql-database-plugin``."""

    names = ("postgresql-database-plugin", "postgresql")
    longest_name = 63

    def parse(
        self, given: Mapping[str, str], kept: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Check a configuration; a password in the URL becomes one that is kept apart."""
        if others := sorted(given.keys() - _OPTIONS - SECRETS):
            raise InvalidRequest(f"PostgreSQL has no option {others[0]!r}")
        if given.get("password_authentication", _SCRAM) != _SCRAM:
            raise InvalidRequest(f"password_authentication is {_SCRAM}: no password is sent in a statement")
        place, user, password = parse_place(given.get("connection_url", ""))
        options = {name: value for name, value in given.items() if name in _OPTIONS and value}
        options.pop("password_authentication", None)
        if not 1 <= _iterations(options) <= _MOST_ITERATIONS:
            raise InvalidRequest(f"scram_iterations is from 1 to {_MOST_ITERATIONS}")
        options["connection_url"] = shown_url(place)
        if user:
            options["username"] = user
        return options, own_secrets(place, options, given, kept, password)

    def check_statements(self, statements: Statements) -> None:
        """Check that statements can be filled in, and that there are some that make a user."""
        if not statements.creation:
            raise InvalidRequest("creation_statements are needed: what makes a user")
        check_statements(statements.creation, (*NAMES, "password", "expiration"))
        check_statements((*statements.revocation, *statements.rollback), NAMES)
        check_statements(statements.renew, (*NAMES, "expiration"))

    def check_rotation(self, statements: Sequence[str]) -> None:
        """Check that statements can be filled in."""
        check_statements(statements, (*NAMES, "password"))

    def open(self, setup: Setup) -> PostgresqlTarget:
        """Return a target; nothing is connected to yet."""
        return PostgresqlTarget(setup)


class PostgresqlTarget:
    """A server of PostgreSQL, seen from one of its databases."""

    def __init__(self, setup: Setup) -> None:
        """Prepare; nothing is connected to yet."""
        self._link = Link(setup)
        self._iterations = _iterations(setup.options)

    async def check(self) -> None:
        """Find out whether it answers, and what it is."""
        async with self._link.lent() as connection:
            await connection.fetchval("SELECT 1")
            version = connection.get_server_version().major
        if version < _OLDEST:
            raise InvalidRequest(f"PostgreSQL {version} is too old: from {_OLDEST} on")

    async def create(self, user: NewUser, statements: Statements) -> None:
        """Make a role in one transaction."""
        secret = await self._verifier(user.password.reveal())
        values = {**_named(user.name), "password": secret, "expiration": _instant(user.until)}
        await self._link.run(_rendered(statements.creation, values), hide=(secret,))

    async def extend(self, name: str, until: datetime, statements: Statements) -> None:
        """Let a role be valid for longer."""
        values = {**_named(name), "expiration": _instant(until)}
        await self._link.run(_rendered(statements.renew or (_RENEW,), values))

    async def drop(self, names: Sequence[str], statements: Statements) -> Mapping[str, str]:
        """End roles and their connections."""
        return await end_users(self._link, names, statements)

    async def take_back(self, names: Sequence[str], statements: Statements) -> Mapping[str, str]:
        """End what creations may have left half done."""
        return await end_users(self._link, names, statements, rollback=True)

    async def set_password(self, name: str, password: str, statements: Sequence[str]) -> None:
        """Give a role the verifier of another password."""
        secret = await self._verifier(password)
        values = {**_named(name), "password": secret}
        await self._link.run(_rendered(statements or (_ROTATE,), values), hide=(secret,))

    async def bar(self, name: str) -> None:
        """Take a role's verifier away."""
        if name in await self.users(name):
            await self._link.run(_rendered((_BAR,), _named(name)))

    async def opens(self, name: str, password: str) -> bool:
        """Tell whether a role can log in with a password."""
        try:
            connection = await self._link.connect(name, (password,))
        except WrongPassword:
            return False
        await connection.close()
        return True

    async def users(self, part: str) -> Sequence[str]:
        """Return the names of roles that contain a text."""
        async with self._link.lent() as connection:
            rows = await connection.fetch(
                "SELECT rolname FROM pg_roles WHERE position($1 IN rolname) > 0", part
            )
        return [row["rolname"] for row in rows]

    def close(self) -> None:
        """Let go of every connection."""
        self._link.close()

    async def _verifier(self, password: str) -> str:
        """Return what is kept of a password: half a millisecond's work, on another core."""
        return await asyncio.to_thread(verifier, password, os.urandom(16), self._iterations)


def _iterations(options: Mapping[str, str]) -> int:
    text = options.get("scram_iterations", str(ITERATIONS))
    return int(text) if text.isdecimal() and len(text) < 8 else 0


def _rendered(statements: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return statements filled in, one by one where several are in one text."""
    return [render(one, values) for text in statements for one in split(text)]


def _named(name: str) -> dict[str, str]:
    return dict.fromkeys(NAMES, name)


def _instant(until: datetime) -> str:
    """Return an instant as SQL has it, in whole seconds and never too early."""
    return datetime.fromtimestamp(math.ceil(until.timestamp()), UTC).strftime("%Y-%m-%d %H:%M:%S+00")
