"""Which agents a run waits for."""

from __future__ import annotations

from secrethub.engines.runtime import Core
from secrethub.engines.secret_rotation.record import Rotation
from secrethub.engines.secret_rotation.secret import announced_as
from secrethub.storage import agent_watches


async def unconfirmed(core: Core, rotation: Rotation, version: int) -> list[str]:
    """Return the ids of agents that use a rotation's secret and have not confirmed a version.

    Newer ones are as good.

    They are looked for by the store that the rotation was configured for, wherever that is mounted by now.
    """
    key = announced_as(rotation.mount, rotation.path)
    async with core.database.read() as connection:
        return await agent_watches.behind(connection, key, version)
