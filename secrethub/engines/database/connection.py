"""A configured connection to a target, as it is kept."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import msgspec

from secrethub.engines.database.plugins import plugin_of
from secrethub.engines.database.target import Setup
from secrethub.engines.kept import kept_key, name_of, opened_secrets, sealed_secrets
from secrethub.engines.reconciling import USUAL_SECONDS
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, NotFound
from secrethub.storage.authority import ENGINE_CONFIGS, Row

FORM = "database"


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A connection.

    Attributes:
        key: of its row.
        revision: of its row; 0 before it is written.
        plugin_name: kind of database.
        options: of the kind, those that may be shown.
        secrets: those that may not, sealed.
        allowed_roles: names of roles that may use it; ``*`` stands for any characters.
        verify_connection: whether it is tried when it is written.
        max_open_connections: at once, of each process.
        max_connection_lifetime: seconds that one is kept; 0 for no bound.
        root_rotation_statements: replace our own password; empty for what is usual.
        password_policy: name of the policy of passwords; empty for 32 letters and digits.
        username_template: see ``usernames.py``; empty for the usual.
        stray_check: seconds between two searches for users without a lease; 0 for none.
        remove_strays: whether those are removed, or only told of.
    """

    key: str
    revision: int = 0
    plugin_name: str
    options: dict[str, str]
    secrets: str
    allowed_roles: tuple[str, ...] = ()
    verify_connection: bool = True
    max_open_connections: int = 4
    max_connection_lifetime: int = 0
    root_rotation_statements: tuple[str, ...] = ()
    password_policy: str = ""
    username_template: str = ""
    stray_check: int = USUAL_SECONDS
    remove_strays: bool = False

    @property
    def name(self) -> str:
        """Its name, as in paths."""
        return name_of(self.key)

    def body(self) -> dict[str, Any]:
        """Return the row's body."""
        body: dict[str, Any] = msgspec.to_builtins(self)
        del body["key"], body["revision"]
        return body

    def allows(self, role: str) -> bool:
        """Tell whether a role may use it."""
        return any(fnmatchcase(role, pattern) for pattern in self.allowed_roles)

    def secrets_of(self, core: Core) -> dict[str, str]:
        """Return what is secret of it, opened."""
        return opened_secrets(core.keyring(), ENGINE_CONFIGS, self.key, self.secrets)

    def with_secrets(self, core: Core, secrets: dict[str, str]) -> Connection:
        """Return it with other secrets."""
        return msgspec.structs.replace(
            self, secrets=sealed_secrets(core.keyring(), ENGINE_CONFIGS, self.key, secrets)
        )

    def setup(self, core: Core) -> Setup:
        """Return what opening it takes."""
        return Setup(
            node=core.settings,
            name=self.name,
            options=self.options,
            secrets=self.secrets_of(core),
            connections=self.max_open_connections,
            lifetime=self.max_connection_lifetime,
        )


def connection_of(row: Row) -> Connection:
    """Return the connection that a row describes."""
    return msgspec.convert({**row.body, "key": row.key, "revision": row.revision}, Connection)


async def find_connection(core: Core, mount: str, name: str) -> Connection:
    """Return a connection of the mount with a UUID.

    Raises:
        NotFound: there is none.
        IntegrityFailure: its row is not authentic.
    """
    row = await core.authority.get(ENGINE_CONFIGS, kept_key(mount, FORM, name))
    if row is None:
        raise NotFound(f"there is no connection {name}")
    return connection_of(row)


async def used_connection(core: Core, mount: str, name: str) -> Connection:
    """Return the connection that a role uses.

    Raises:
        InvalidRequest: there is none (400, as Vault answers).
        IntegrityFailure: its row is not authentic.
    """
    try:
        return await find_connection(core, mount, name)
    except NotFound as exc:
        raise InvalidRequest(exc.message) from None


def checked(connection: Connection) -> Connection:
    """Return a connection whose kind there is, and its numbers can be.

    Raises:
        InvalidRequest: what is wrong.
    """
    plugin_of(connection.plugin_name)
    if not 1 <= connection.max_open_connections <= 100:
        raise InvalidRequest("max_open_connections is from 1 to 100")
    return connection
