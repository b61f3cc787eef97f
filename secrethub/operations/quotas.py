"""Rate limits on the way of a request, and the exchange of budgets with the other processes.

A request is counted once, before anything is written down for it. Nobody waits for the database but
requests that would else be refused for want of a share: they all wait for the one exchange that is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from secrethub.auth.digests import role_id_digest
from secrethub.engines.identity import Identity
from secrethub.engines.mounts import Route
from secrethub.engines.quotas import Budget
from secrethub.engines.runtime import Core
from secrethub.errors import IntegrityFailure, QuotaExceeded, SecretHubError, Unavailable
from secrethub.operations.call import Call
from secrethub.operations.note import note
from secrethub.storage.authority import ROLE_IDS
from secrethub.storage.quota_levels import exchange

_DISTANCE = 0.02
"""Seconds between two exchanges."""
_PERIOD = 0.25
"""Seconds after which shares that were not spent are given back."""

_log = logging.getLogger(__name__)


async def limit(core: Core, call: Call, path: str, route: Route | None, identity: Identity | None) -> None:
    """Count a request against the quota that applies to it.

    Args:
        core: this process.
        call: the request.
        path: the one that decides.
        route: its way, as far as it is known.
        identity: who asks, as far as it is known.

    Raises:
        QuotaExceeded: there were too many; how many is written down later.
    """
    quotas = core.quotas
    if quotas.none:
        return
    mount = None if route is None or not route.mount.path else route.mount
    entity = None if identity is None else identity.entity or identity.key
    role = await _claimed_role(core, call, route)
    budget = await quotas.budget(path, mount, role, call.client_address, entity)
    if budget is None:
        return
    try:
        await _spend(core, budget)
    except QuotaExceeded:
        name = budget.quota.name
        quotas.refused[name] = quotas.refused.get(name, 0) + 1
        raise


async def _spend(core: Core, budget: Budget) -> None:
    now = core.clock.monotonic()
    if budget.spend(now):
        if budget.share < 1:
            core.exchange.wake.set()
        return
    budget.waiting += 1
    try:
        await core.exchange.next()
    finally:
        budget.waiting -= 1
    if budget.share < 1:
        raise budget.exceeded(core.clock.monotonic())
    budget.share -= 1


async def _claimed_role(core: Core, call: Call, route: Route | None) -> str | None:
    """Return the role, or user, that a login claims, if some quota asks."""
    operation = None if route is None else route.operation
    if route is None or operation is None or operation.claims is None:
        return None
    known = await core.quotas.load()
    if not any(quota.role and quota.mount == route.mount.path for quota in known.rates):
        return None
    claim = operation.claims(route.params, call.body, call.peer)
    if not claim or route.mount.type != "approle":
        return claim or None
    try:
        row = await core.authority.get(ROLE_IDS, role_id_digest(core.keyring(), route.mount.uuid, claim))
    except IntegrityFailure:
        return None  # the login says so
    return None if row is None else str(row.body["role"]).rpartition("/")[2]


async def run_exchange(core: Core) -> None:
    """Exchange budgets for as long as the process runs."""
    due = core.exchange
    while True:
        timeout = _PERIOD if core.quotas.unsettled() else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await due.wake.wait()
        due.wake.clear()
        waiting = due.begin()
        try:
            await settle(core)
        except SecretHubError as exc:
            _log.warning("budgets of quotas could not be exchanged: %s", exc.code)
        finally:
            if not waiting.done():
                waiting.set_result(None)
        await asyncio.sleep(_DISTANCE)


async def settle(core: Core) -> None:
    """Give back, pay and take shares, once.

    Raises:
        Unavailable: the database does not answer; nobody is given credit until it does.
    """
    budgets = core.quotas.unsettled()
    if not budgets:
        return
    asks = []
    for budget in budgets:
        asks.append(budget.ask())
        budget.lend()
    try:
        async with core.database.write() as connection:
            shares = await exchange(connection, asks)
    except Unavailable:
        for budget in budgets:
            budget.credit = 0
        raise
    now = core.clock.monotonic()
    for budget in budgets:
        budget.settle(shares[budget.key], now)


async def summarise(core: Core) -> None:
    """Write down how many requests each quota refused: they are not in the ledger one by one.

    Raises:
        SecretHubError: not now; what was counted stays counted.
    """
    counted, core.quotas.refused = core.quotas.refused, {}
    for name in sorted(counted):
        try:
            await note(
                core,
                operation="request.throttled",
                path=f"sys/quotas/rate-limit/{name}",
                actor="system",
                outcome="refused",
                reason="request rate limit exceeded",
                detail={"count": counted[name], "quota": name},
            )
        except SecretHubError:
            for left in sorted(counted):
                core.quotas.refused[left] = core.quotas.refused.get(left, 0) + counted[left]
            raise
        core.metrics.throttled.inc(counted.pop(name))
