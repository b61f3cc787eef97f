"""A static role: a user that is at the target already, whose password is ours, and replaced by a schedule."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from secrethub.clock import from_micros, micros
from secrethub.engines.database.connection import used_connection
from secrethub.engines.database.replacing import NEXT, PRESENT, Ended, Replacing, Whose
from secrethub.engines.database.targets import targets_of
from secrethub.engines.kept import name_of, opened_secrets
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.rotation.schedule import Schedule
from secrethub.storage.authority import ENGINE_ROLES, Row

FORM = "database-static"


class StaticRole(msgspec.Struct, frozen=True, kw_only=True):
    """A static role.

    Attributes:
        key: of its row.
        revision: of its row; 0 before it is written.
        db_name: the connection by which the password is replaced.
        username: at the target.
        schedule: when it is replaced.
        rotation_statements: replace it; empty for what is usual.
        rotated_at: when it was replaced last, in microseconds since the epoch; 0 for never.
        secrets: the password, sealed; two while it is being replaced.
    """

    key: str
    revision: int = 0
    db_name: str
    username: str
    schedule: Schedule
    rotation_statements: tuple[str, ...] = ()
    rotated_at: int = 0
    secrets: str = ""

    @property
    def name(self) -> str:
        """Its name, as in paths."""
        return name_of(self.key)

    @property
    def mount(self) -> str:
        """UUID of its mount."""
        return self.key.partition("/")[0]

    def body(self) -> dict[str, Any]:
        """Return the row's body."""
        body: dict[str, Any] = msgspec.to_builtins(self)
        del body["key"], body["revision"]
        return body

    def due(self, now: datetime) -> datetime | None:
        """Return when the password is to be replaced next, if it is replaced now."""
        return self.schedule.following(now, now)

    def seconds_left(self, now: datetime) -> int:
        """Return the seconds until the password is to be replaced."""
        last = from_micros(self.rotated_at)
        following = self.schedule.following(last, last)
        return 0 if following is None else max(0, (following - now) // timedelta(seconds=1))


def static_role_of(row: Row) -> StaticRole:
    """Return the static role that a row describes."""
    return msgspec.convert({**row.body, "key": row.key, "revision": row.revision}, StaticRole)


async def replacing_of(core: Core, row: Row, written: list[dict[str, Any]]) -> Replacing:
    """Return what replaces the password of a static role; what it writes is added to ``written``.

    Raises:
        InvalidRequest: its connection is configured no more, or not for it.
    """
    role = static_role_of(row)
    connection = await used_connection(core, role.mount, role.db_name)
    if not connection.allows(role.name):
        raise InvalidRequest(f"{role.name} is not an allowed role of the connection {connection.name}")
    if role.username == connection.options.get("username"):
        raise InvalidRequest("the connection's own user is no static role: rotate-root replaces its password")
    whose = Whose(connection=connection, username=role.username, statements=role.rotation_statements)
    return Replacing(core, ENGINE_ROLES, row, lambda _: whose, written)


def ended(role: StaticRole, now: datetime) -> Ended:
    """Return what changes in the row of a role whose password is replaced now."""
    return Ended(body={"rotated_at": micros(now)}, expires_at=role.due(now))


async def present_password(core: Core, role: StaticRole) -> str:
    """Return the password that is good now; of two the target says which.

    Raises:
        InvalidRequest: its connection is configured no more.
        Unavailable: the target does not answer, or there is none yet.
    """
    secrets = opened_secrets(core.keyring(), ENGINE_ROLES, role.key, role.secrets)
    if NEXT in secrets:
        connection = await used_connection(core, role.mount, role.db_name)
        try:
            async with targets_of(core).use(connection) as target:
                if await target.opens(role.username, secrets[NEXT]):
                    return secrets[NEXT]
        except TimeoutError:
            raise Unavailable("the target did not answer in time") from None
    if PRESENT not in secrets:
        raise Unavailable("the password of this role could not be set yet")
    return secrets[PRESENT]
