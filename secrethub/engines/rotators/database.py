"""Passwords of database users that people own, replaced at the database through a configured connection.

``database-password`` replaces the one password of one user: whoever connects between that and his new file is
refused. ``database-two-users`` lets two users with the same rights take turns: the new one is good before
anybody is told of it, and the old one is barred when everybody has said that he uses the new one.

The users are part of what is configured. Were they taken from the secret, whoever may write that could have
any user's password replaced.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from secrethub.engines.database.connection import FORM, Connection, connection_of
from secrethub.engines.database.passwords import new_password
from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.target import Target
from secrethub.engines.database.targets import targets_of
from secrethub.engines.kept import kept_key
from secrethub.engines.rotators.rotator import Plan, Refused, Setup
from secrethub.errors import InvalidRequest
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import ENGINE_CONFIGS

_CONFIG = "/config/"
_USERNAME, _PASSWORD = "username", "password"
_OPTIONS = frozenset({"connection", "username_field", "password_field"})


class _DatabaseRotator(ABC):
    """What both kinds have in common."""

    kind = ""
    options = _OPTIONS
    secrets: frozenset[str] = frozenset()

    def check(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> None:  # noqa: ARG002
        """Check that there is a connection, users, and two names of fields."""
        self.needs(options)
        names = _fields(options)
        if names[0] == names[1] or not all(0 < len(name) <= 128 and name.isprintable() for name in names):
            raise InvalidRequest("username_field and password_field are names of two fields of the secret")
        for user in self.users(options):
            if not 0 < len(user) <= 63 or not user.isprintable():
                raise InvalidRequest("a user is named by 1 to 63 printable characters")

    def needs(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """The connection: whoever may change it has its power."""
        path = options.get("connection", "").strip("/")
        mount, found, name = path.rpartition(_CONFIG)
        if not (mount and found and name) or "/" in name:
            raise InvalidRequest("connection is the path of one, as secrets/dynamic/postgresql/config/<name>")
        return (path,)

    @abstractmethod
    def users(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """Return the users whose passwords are replaced.

        Raises:
            InvalidRequest: they are not named.
        """

    async def probe(self, setup: Setup, current: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Find out whether the database answers us, and has the users."""
        async with self._target(setup) as target:
            await target.check()
            for user in self.users(setup.options):
                if user not in await target.users(user):
                    raise Refused(f"there is no user {user}")

    async def verify(self, setup: Setup, plan: Plan) -> None:
        """Log in as the user."""
        user, password = self._planned(setup, plan)
        async with self._target(setup) as target:
            if not await target.opens(user, password.reveal()):
                raise Refused(f"{user} is not let in with the new password")

    async def create(self, setup: Setup, plan: Plan) -> Mapping[str, Any]:
        """Give the user the password."""
        user, password = self._planned(setup, plan)
        async with self._target(setup) as target:
            await target.set_password(user, password.reveal(), ())
        return {}

    def _planned(self, setup: Setup, plan: Plan) -> tuple[str, Sensitive[str]]:
        return plan.notes["user"], Sensitive(str(plan.fields[_fields(setup.options)[1]]))

    async def _plan(self, setup: Setup, user: str) -> tuple[dict[str, Any], dict[str, str]]:
        connection = await _connection(setup)
        self._check_own(connection, setup)
        password = await new_password(setup.core, connection.password_policy)
        username_field, password_field = _fields(setup.options)
        return {username_field: user, password_field: password.reveal()}, {"user": user}

    async def _take_back(self, setup: Setup, plan: Plan, password: Sensitive[str] | None) -> None:
        """Give a user another password than the one that was planned, if there is such a user at all."""
        connection = await _connection(setup)
        if connection.options.get("username") == plan.notes["user"]:
            return
        user = plan.notes["user"]
        async with self._target(setup) as target:
            if password is None:
                await target.bar(user)
            elif user in await target.users(user):
                await target.set_password(user, password.reveal(), ())

    def _check_own(self, connection: Connection, setup: Setup) -> None:
        if connection.options.get("username") in self.users(setup.options):
            raise Refused("Core's own user at the database is replaced by rotate-root only")

    @asynccontextmanager
    async def _target(self, setup: Setup) -> AsyncIterator[Target]:
        connection = await _connection(setup)
        self._check_own(connection, setup)
        try:
            async with targets_of(setup.core).use(connection) as target:
                yield target
        except InvalidRequest as exc:
            raise Refused(exc.message) from exc


class DatabasePasswordRotator(_DatabaseRotator):
    """Kind ``database-password``: one user, whose old password ends when the new one begins."""

    kind = "database-password"
    options = _OPTIONS | {"username"}

    def users(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """The one of ``username``."""
        if not options.get("username"):
            raise InvalidRequest("username is the user whose password is replaced")
        return (options["username"],)

    async def plan(
        self,
        setup: Setup,
        current: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Plan a new password of the user."""
        return await self._plan(setup, setup.options["username"])

    async def retire(self, setup: Setup, plan: Plan) -> None:
        """The old password ended when the new one was set."""

    async def undo(self, setup: Setup, plan: Plan) -> None:
        """Give the old password back; what was no text is none."""
        old = plan.before.get(_fields(setup.options)[1])
        await self._take_back(setup, plan, Sensitive(old) if isinstance(old, str) and old else None)


class DatabaseTwoUsersRotator(_DatabaseRotator):
    """Kind ``database-two-users``: two users take turns, so no moment is without one that is good."""

    kind = "database-two-users"
    options = _OPTIONS | {"users"}

    def users(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """The two of ``users``."""
        names = tuple(name.strip() for name in options.get("users", "").split(","))
        if len(names) != 2 or names[0] == names[1] or not all(names):
            raise InvalidRequest("users are two users with the same rights: one,other")
        return names

    async def plan(self, setup: Setup, current: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Plan a new password of the user whose turn it is."""
        first, second = self.users(setup.options)
        now = current.get(_fields(setup.options)[0])
        return await self._plan(setup, second if now == first else first)

    async def retire(self, setup: Setup, plan: Plan) -> None:
        """Bar the other user. Whoever is connected as he stays so: nobody is cut off amid his work."""
        old = plan.before.get(_fields(setup.options)[0])
        if old in self.users(setup.options) and old != plan.notes["user"]:
            async with self._target(setup) as target:
                await target.bar(str(old))

    async def undo(self, setup: Setup, plan: Plan) -> None:
        """Bar the user whose turn it was to be."""
        await self._take_back(setup, plan, None)


def _fields(options: Mapping[str, str]) -> tuple[str, str]:
    """Return the names of the fields that have the user's name and his password."""
    return options.get("username_field", _USERNAME), options.get("password_field", _PASSWORD)


async def _connection(setup: Setup) -> Connection:
    """Return the configured connection, as the database has it now.

    Raises:
        Refused: there is none.
        IntegrityFailure: its row is not authentic.
    """
    path = setup.options["connection"].strip("/")
    mount = await setup.mount_of(path, "database")
    name = path.rpartition(_CONFIG)[2]
    row = await setup.core.authority.fetch(ENGINE_CONFIGS, kept_key(mount.uuid, FORM, name))
    if row is None:
        raise Refused(f"there is no connection {path}")
    found = connection_of(row)
    plugin_of(found.plugin_name)
    return found
