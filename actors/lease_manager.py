"""LeaseManager: ends leases that are due, at their targets.

It decides when; what ending a lease is and what must be in the ledger first is ``engines/lease_ending.py``.
Nobody calls it on the way of a request: whoever revokes a lease orders so in the database.
"""

from __future__ import annotations

from actors.tree import LEASE_MANAGER
from actors.worker import Worker


class LeaseManager(Worker):
    """One per node.

    Promise: what is due is ended as long as any node's manager lives and the cluster is unsealed. Several
    claim different leases (SKIP LOCKED); what a manager claimed that died or stood still is another's once
    the claim has run out, and ending a lease twice harms nobody. It keeps nothing in memory but which
    targets do not answer, so neither its start nor its size depends on how many leases there are.
    """

    name = LEASE_MANAGER

    async def work(self) -> None:
        """End leases until cancelled."""
        from secrethub.operations.leases import end_leases
        from secrethub.operations.strays import search_targets
        from secrethub.operations.targets import watch_targets

        await self._workplace.run(end_leases, search_targets, upkeep=(watch_targets,))
