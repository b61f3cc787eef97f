"""Credentials of AWS: temporary ones of STS, and users of IAM that live as long as a lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from secrethub.engines.aws.config import config_operations
from secrethub.engines.aws.creds import creds_operations, end_creds, extend_creds
from secrethub.engines.aws.roles import role_operations
from secrethub.engines.aws.rotating import rotating_operations
from secrethub.engines.aws.strays import stray_operations
from secrethub.engines.engine import Operation
from secrethub.engines.leasing import Held
from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core


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
