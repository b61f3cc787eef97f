"""RotationScheduler: carries rotations of secrets on, and replaces passwords of static roles, when due.

It decides when and which; what is done then is ``operations/rotation_runs.py`` and ``static_roles.py``.
Nobody calls it: whoever wants a rotation writes so in the database.
"""

from __future__ import annotations

from actors.tree import ROTATION_SCHEDULER
from actors.worker import Worker


class RotationScheduler(Worker):
    """One per node.

    Promise: what is due is carried on as long as any node's scheduler lives and the cluster is unsealed. A
    rotation is worked at by whoever has its claim, and moved on only from the revision that he knows; a
    scheduler that died is replaced by any other, at the step where the run is. Nothing is kept in memory.
    """

    name = ROTATION_SCHEDULER

    async def work(self) -> None:
        """Carry rotations on until cancelled."""
        from secrethub.operations.rotations import rotate_secrets
        from secrethub.operations.static_roles import rotate_static_roles
        from secrethub.operations.targets import watch_targets

        await self._workplace.run(rotate_secrets, rotate_static_roles, upkeep=(watch_targets,))
