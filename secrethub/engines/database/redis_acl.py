"""Redis: users of its access control lists, which know a password by its SHA-256 digest.

Passwords here are random, so their digest tells nothing; no password gets into ``MONITOR`` or the slow log.
A change is kept by the server (``ACL SAVE``, ``CONFIG REWRITE``) before it counts as made: otherwise users
would be gone after its restart, and those that were ended would be back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from secrethub.engines.database.place import SECRETS, own_secrets
from secrethub.engines.database.redis_rules import parse_place, rules, shown_url
from secrethub.engines.database.target import NewUser, Setup, Statements
from secrethub.errors import InvalidRequest

if TYPE_CHECKING:
    from secrethub.engines.database.redis_link import Session

_KEPT = frozenset({"username", "tls_ca", "tls_certificate", "persistence_mode"})
_WHERE = frozenset({"connection_url", "host", "port", "tls", "ca_cert"})
_SAVES: Mapping[str, tuple[str, ...]] = {
    "ACLFILE": ("ACL", "SAVE"),
    "REWRITE": ("CONFIG", "REWRITE"),
    "NONE": (),
}
"""By the names that Vault has."""


class RedisPlugin:
    """Plugin ``redis-database-plugin``."""

    names = ("redis-database-plugin", "redis")
    longest_name = 128

    def parse(
        self, given: Mapping[str, str], kept: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Check a configuration; a password in the URL becomes one that is kept apart."""
        if others := sorted(name for name in given.keys() - _KEPT - _WHERE - SECRETS if given[name]):
            raise InvalidRequest(f"Redis has no option {others[0]!r}")
        place, user, password = parse_place(given)
        options = {name: given[name] for name in _KEPT if given.get(name)}
        options["connection_url"] = shown_url(place)
        if given.get("ca_cert"):
            options["tls_ca"] = given["ca_cert"]
        if user:
            options["username"] = user
        if options.get("persistence_mode", "NONE") not in _SAVES:
            raise InvalidRequest(f"persistence_mode is one of {', '.join(_SAVES)}; absent for what there is")
        return options, own_secrets(place, options, given, kept, password)

    def check_statements(self, statements: Statements) -> None:
        """Check rules; everything else is always the same."""
        rules(statements.creation)
        if statements.revocation or statements.rollback or statements.renew:
            raise InvalidRequest("Redis has creation_statements only: a user is deleted when it ends")

    def check_rotation(self, statements: Sequence[str]) -> None:
        """There is one way to give a user another password."""
        if statements:
            raise InvalidRequest("Redis has no statements for another password")

    def open(self, setup: Setup) -> RedisTarget:
        """Return a target; nothing is connected to yet."""
        return RedisTarget(setup)


class RedisTarget:
    """A server of Redis. Its access control lists are its own: replicas have others."""

    def __init__(self, setup: Setup) -> None:
        """Prepare; nothing is connected to yet."""
        # The client's library is loaded where there is a Redis, and nowhere else.
        from secrethub.engines.database.redis_link import Link

        self._link = Link(setup)
        self._mode = setup.options.get("persistence_mode", "")

    async def check(self) -> None:
        """Find out whether it answers, may be worked at, and would keep users through a restart."""
        async with self._link.lent() as session:
            await session.ask("ACL", "USERS")
            await self._save_of(session)

    async def create(self, user: NewUser, statements: Statements) -> None:
        """Make a user in one command."""
        wanted = rules(statements.creation)
        async with self._link.lent() as session:
            save = await self._save_of(session)
            if await session.ask("ACL", "GETUSER", user.name) is not None:
                raise InvalidRequest("there is a user of that name already")
            secret = "#" + _digest(user.password.reveal())
            await session.ask("ACL", "SETUSER", user.name, "reset", *wanted, secret, "on")
            await _saved(session, save)

    async def extend(self, name: str, until: datetime, statements: Statements) -> None:  # noqa: ARG002
        """Find out whether a user is there: only its lease ends it."""
        async with self._link.lent() as session:
            if await session.ask("ACL", "GETUSER", name) is None:
                raise InvalidRequest("the user is gone")

    async def drop(self, names: Sequence[str], statements: Statements) -> Mapping[str, str]:  # noqa: ARG002
        """End users; Redis ends their connections with them."""
        async with self._link.lent() as session:
            save = await self._save_of(session)
            await session.ask("ACL", "DELUSER", *names)
            await _saved(session, save)
        return {}

    async def take_back(self, names: Sequence[str], statements: Statements) -> Mapping[str, str]:
        """End what creations may have left."""
        return await self.drop(names, statements)

    async def set_password(self, name: str, password: str, statements: Sequence[str]) -> None:  # noqa: ARG002
        """Give a user that is there another password."""
        async with self._link.lent() as session:
            save = await self._save_of(session)
            if await session.ask("ACL", "GETUSER", name) is None:
                raise InvalidRequest(f"there is no user {name}")
            # A server that cannot save would take one after another, and its restart would bring the first
            # one back, which nobody knows any more.
            await _saved(session, save)
            await session.ask("ACL", "SETUSER", name, "resetpass", "#" + _digest(password))
            if save:
                await session.keep(*save)

    async def bar(self, name: str) -> None:
        """Take a user's passwords away."""
        async with self._link.lent() as session:
            save = await self._save_of(session)
            if await session.ask("ACL", "GETUSER", name) is not None:
                await session.ask("ACL", "SETUSER", name, "resetpass")
                await _saved(session, save)

    async def opens(self, name: str, password: str) -> bool:
        """Tell whether a user is let in with a password."""
        return await self._link.opens(name, password)

    async def users(self, part: str) -> Sequence[str]:
        """Return the names of users that contain a text."""
        async with self._link.lent() as session:
            return [name for name in await session.ask("ACL", "USERS") if part in name]

    def close(self) -> None:
        """No connection is kept."""

    async def _save_of(self, session: Session) -> tuple[str, ...]:
        """Return the command that keeps changes through a restart.

        Raises:
            InvalidRequest: there is none.
        """
        if self._mode:
            return _SAVES[self._mode]
        found = await session.ask("CONFIG", "GET", "aclfile")
        if len(found) > 1 and found[1]:
            return _SAVES["ACLFILE"]
        told = await session.ask("INFO", "server")
        if any(
            line.startswith("config_file:") and line.strip() != "config_file:" for line in told.splitlines()
        ):
            return _SAVES["REWRITE"]
        raise InvalidRequest(
            "users would not survive a restart of the server: give it an aclfile, start it with a "
            "configuration file, or take that into account with persistence_mode NONE"
        )


async def _saved(session: Session, save: tuple[str, ...]) -> None:
    if save:
        await session.ask(*save)


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
