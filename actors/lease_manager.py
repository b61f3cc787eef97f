"""LeaseManager: ends leases that are due, at their targets.

It decides when; what ending a lease is and what must be in the ledger first is ``engines/lease_ending.py``.
Nobody calls it on the way of a request: whoever revokes a lease orders so in the database.
"""

from __future__ import annotations

import asyncio
import os
import time

from actors.tree import LEASE_MANAGER
from actors.workplace import Workplace, until_done


class LeaseManager:
    """One per node.

    Promise: what is due is ended as long as any node's manager lives and the cluster is unsealed. Several
    claim different leases (SKIP LOCKED); what a manager claimed that died or stood still is another's once
    the claim has run out, and ending a lease twice harms nobody. It keeps nothing in memory but which
    targets do not answer, so neither its start nor its size depends on how many leases there are.
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
        return f"LeaseManager(node={self._node})"

    async def health(self) -> dict[str, object]:
        """Tell who this is; how the leases are is in the metrics."""
        return {
            "name": LEASE_MANAGER,
            "node": self._node,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._begun,
        }

    async def hold(self) -> None:
        """End leases until closed."""
        from secrethub.operations.leases import end_leases
        from secrethub.operations.strays import search_targets
        from secrethub.operations.targets import watch_targets

        work = self._workplace.run(end_leases, search_targets, upkeep=(watch_targets,))
        await until_done(self._done, work)

    async def close(self) -> None:
        """End; what is under way is cut off, as by a crash."""
        self._done.set()
