"""A role: which target its users are made at, how, and how long they live."""

from __future__ import annotations

from typing import Any

import msgspec

from secrethub.engines.database.connection import Connection
from secrethub.engines.database.target import Statements
from secrethub.engines.kept import kept_key, name_of
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest
from secrethub.storage.authority import ENGINE_ROLES, Row

FORM = "database"


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A role.

    Attributes:
        key: of its row.
        db_name: the connection that it uses.
        statements: what is done at the target.
        default_ttl: seconds that a user lives to begin with; 0 for the mount's.
        max_ttl: seconds that it lives at most; 0 for the mount's.
    """

    key: str
    db_name: str
    statements: Statements = Statements()
    default_ttl: int = 0
    max_ttl: int = 0

    @property
    def name(self) -> str:
        """Its name, as in paths."""
        return name_of(self.key)

    def body(self) -> dict[str, Any]:
        """Return the row's body."""
        body: dict[str, Any] = msgspec.to_builtins(self)
        del body["key"]
        return body


def role_of(row: Row) -> Role:
    """Return the role that a row describes."""
    return msgspec.convert({**row.body, "key": row.key}, Role)


async def find_role(core: Core, mount: str, name: str) -> Role | None:
    """Return a role of the mount with a UUID; None when there is none.

    Raises:
        InvalidRequest: not a name.
        IntegrityFailure: its row is not authentic.
    """
    row = await core.authority.get(ENGINE_ROLES, kept_key(mount, FORM, name))
    return None if row is None else role_of(row)


def check_allowed(connection: Connection, role: str) -> None:
    """Check that a role may use a connection.

    Raises:
        InvalidRequest: it may not (400).
    """
    if not connection.allows(role):
        raise InvalidRequest(f"{role} is not an allowed role of the connection {connection.name}")
