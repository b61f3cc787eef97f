"""Credentials of AWS: temporary ones of STS, and users of IAM that live as long as a lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from secrethub.engines.aws.config import config_operations
from secrethub.engines.aws.creds import creds_operations, end_creds, extend_creds
from secrethub.engines.aws.roles import role_operations
from secrethub.engines.aws.root import TARGET, is_root, root_of
from secrethub.engines.aws.rotating import rotating_operations
from secrethub.engines.aws.strays import drop_strays, stray_operations, strays
from secrethub.engines.engine import Operation
from secrethub.engines.leasing import Held
from secrethub.engines.mounts import Mount
from secrethub.engines.reconciling import StrayRule
from secrethub.engines.runtime import Core
from secrethub.storage.authority import Row


class AwsEngine:
    """Engine kind ``aws``."""

    kind = "aws"

    def operations(self) -> tuple[Operation, ...]:
        """Return what a mount of AWS offers."""
        return (
            *config_operations(),
            *rotating_operations(),
            *role_operations(),
            *creds_operations(),
            *stray_operations(),
        )

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount

    async def revoke(self, core: Core, mount: Mount, _target: str, held: Sequence[Held]) -> Mapping[str, str]:
        """End users; temporary credentials end by themselves."""
        return await end_creds(core, mount, held)

    async def undo(self, core: Core, mount: Mount, _target: str, held: Sequence[Held]) -> Mapping[str, str]:
        """End users whose making came to no lease."""
        return await end_creds(core, mount, held)

    async def extend(self, core: Core, mount: Mount, held: Held, until: datetime) -> None:
        """Let a user live longer."""
        await extend_creds(core, mount, held, until)

    def stray_rule(self, row: Row) -> StrayRule | None:
        """Return how the account is searched."""
        if not is_root(row):
            return None
        found = root_of(row)
        return StrayRule(target=TARGET, seconds=found.stray_check, remove=found.remove_strays)

    async def strays(self, core: Core, mount: str, _target: str) -> Sequence[str]:
        """Return users without a lease."""
        return await strays(core, mount)

    async def remove_strays(
        self, core: Core, mount: str, _target: str, names: Sequence[str]
    ) -> Mapping[str, str]:
        """Remove users without a lease."""
        return await drop_strays(core, mount, names)
