"""RotationScheduler: carries rotations of secrets on, and replaces passwords of static roles, when due.

It decides when and which; what is done then is ``operations/rotation_runs.py`` and ``static_roles.py``.
Nobody calls it: whoever wants a rotation writes so in the database.
"""

from __future__ import annotations

import asyncio
import os
import time

from actors.tree import ROTATION_SCHEDULER
from actors.workplace import Workplace, until_done


class RotationScheduler:
    """One per node.

    Promise: what is due is carried on as long as any node's scheduler lives and the cluster is unsealed. A
    rotation is worked at by whoever has its claim, and moved on only from the revision that he knows; a
    scheduler that died is replaced by any other, at the step where the run is. Nothing is kept in memory.
    """

    def __init__(self, *, node: str, workplace: Workplace) -> None:
        """Prepare.

        Args:
            node: this node's name.
            workplace: where the work is done.
        """
        self._node = node
        self._workplace = workplace
        self._begun = time.monotonic()
        self._done = asyncio.Event()

    def __repr__(self) -> str:
        return f"RotationScheduler(node={self._node})"

    async def health(self) -> dict[str, object]:
        """Tell who this is; how the rotations are is in the metrics."""
        return {
            "name": ROTATION_SCHEDULER,
            "node": self._node,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._begun,
        }

    async def hold(self) -> None:
        """Carry rotations on until closed."""
        from secrethub.operations.rotations import rotate_secrets
        from secrethub.operations.static_roles import rotate_static_roles
        from secrethub.operations.targets import watch_targets

        work = self._workplace.run(rotate_secrets, rotate_static_roles, upkeep=(watch_targets,))
        await until_done(self._done, work)

    async def close(self) -> None:
        """End; what is under way is cut off, as by a crash."""
        self._done.set()
