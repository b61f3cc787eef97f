"""Looking again and again for leases that are due, and ending them.

Every node's LeaseManager does, and whichever claims a lease first ends it. Nothing is kept in memory but how
the targets are: what is next is asked of an index. While the cluster is sealed or the database is away it
waits.
"""

from __future__ import annotations

import asyncio
import logging

from secrethub.engines.lease_ending import end_due
from secrethub.engines.lease_quotas import bound
from secrethub.engines.runtime import Core
from secrethub.errors import SecretHubError
from secrethub.storage import lease_ends, lease_lists
from secrethub.storage.lease_makings import leases_within

_LONGEST_WAIT = 0.1
"""Seconds between two looks, each at one entry of an index: a lease may have been revoked elsewhere."""
_SHORTEST_WAIT = 0.02
_OTHERS_SECONDS = 0.5
"""For what is due and belongs to a target that rests, or to somebody else."""
_TROUBLE_SECONDS = 1.0
_TELL_SECONDS = 10.0

_log = logging.getLogger(__name__)


async def end_leases(core: Core) -> None:
    """End what is due until cancelled."""
    told = core.clock.monotonic()
    while True:
        await core.opened.wait()
        try:
            due = await lease_ends.next_due(core.database)
            tried = await end_due(core) if due is not None and due <= 0 else 0
            if core.clock.monotonic() - told >= _TELL_SECONDS:
                told = core.clock.monotonic()
                await tell(core)
            wait = 0.0 if tried else _wait(due)
        except SecretHubError as exc:
            _log.warning("leases cannot be ended now: %s", exc.code)
            wait = _TROUBLE_SECONDS
        await asyncio.sleep(wait)


def _wait(due: float | None) -> float:
    """Return how long to wait where nothing could be claimed, although something may be due."""
    if due is None:
        return _LONGEST_WAIT
    return min(max(due, _SHORTEST_WAIT), _LONGEST_WAIT) if due > 0 else _OTHERS_SECONDS


async def tell(core: Core) -> None:
    """Set the metrics of how leases stand in the whole cluster."""
    found = await lease_lists.standing(core.database)
    core.metrics.leases_due.set(found["due"])
    core.metrics.leases_failing.set(found["failing"])
    core.metrics.leases_dead.set(found["dead"])
    by_kind: dict[str, int] = {}
    for mount, number in (await lease_lists.held(core.database)).items():
        known = await core.mounts.by_uuid(mount)
        if known is not None:
            by_kind[known[0].type] = by_kind.get(known[0].type, 0) + number
    for kind, number in by_kind.items():
        core.metrics.leases.labels(kind).set(number)
    await _tell_quotas(core)


async def _tell_quotas(core: Core) -> None:
    quotas = (await core.quotas.load()).leases
    mounts = {mount.path: mount.uuid for mount in await core.mounts.load()}
    core.metrics.lease_quota_leases.clear()
    core.metrics.lease_quota_most.clear()
    async with core.database.read() as connection:
        for quota in quotas:
            number = await leases_within(connection, bound(quota, mounts.get(quota.mount, "")))
            core.metrics.lease_quota_leases.labels(quota.name).set(number)
            core.metrics.lease_quota_most.labels(quota.name).set(quota.max_leases)
