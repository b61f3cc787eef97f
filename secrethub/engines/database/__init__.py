"""Credentials of databases: users made for as long as a lease, at targets that are configured.

What is the same for every kind of database is here; a kind is one :class:`~…target.Plugin`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from secrethub.engines.database.configs import config_operations
from secrethub.engines.database.connection import FORM, connection_of
from secrethub.engines.database.creds import creds_operations, end_users, extend_user
from secrethub.engines.database.roles import role_operations
from secrethub.engines.database.rotating import rotating_operations
from secrethub.engines.database.static_roles import static_role_operations
from secrethub.engines.database.strays import drop_strays, stray_operations, strays
from secrethub.engines.engine import Operation
from secrethub.engines.leasing import Held
from secrethub.engines.mounts import Mount
from secrethub.engines.reconciling import StrayRule
from secrethub.engines.runtime import Core
from secrethub.storage.authority import Row


class DatabaseEngine:
    """Engine kind ``database``."""

    kind = "database"

    def operations(self) -> tuple[Operation, ...]:
        """Return what a database mount offers."""
        return (
            *config_operations(),
            *rotating_operations(),
            *role_operations(),
            *creds_operations(),
            *static_role_operations(),
            *stray_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount

    async def revoke(self, core: Core, mount: Mount, target: str, held: Sequence[Held]) -> Mapping[str, str]:
        """End users."""
        return await end_users(core, mount, target, held)

    async def undo(self, core: Core, mount: Mount, target: str, held: Sequence[Held]) -> Mapping[str, str]:
        """End users whose making came to no lease."""
        return await end_users(core, mount, target, held, half_done=True)

    async def extend(self, core: Core, mount: Mount, held: Held, until: datetime) -> None:
        """Let a user live longer."""
        await extend_user(core, mount, held, until)

    def stray_rule(self, row: Row) -> StrayRule | None:
        """Return how a connection's target is searched."""
        if row.key.split("/")[1] != FORM:
            return None
        found = connection_of(row)
        return StrayRule(target=found.name, seconds=found.stray_check, remove=found.remove_strays)

    async def strays(self, core: Core, mount: str, target: str) -> Sequence[str]:
        """Return users without a lease."""
        return await strays(core, mount, target)

    async def remove_strays(
        self, core: Core, mount: str, target: str, names: Sequence[str]
    ) -> Mapping[str, str]:
        """Remove users without a lease."""
        return await drop_strays(core, mount, target, names)
