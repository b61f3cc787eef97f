"""Rate limits: which one applies to a request, and what of its budget this process has.

The most specific quota of a request is the only one that counts: that of the login's role, of the path, of
the mount, of everything. Its budget is one for all, or one for each client address or each identity.

A budget belongs to the cluster (``storage/quota_levels.py``). A process spends the share that it was given;
without one it spends a little on credit, and whoever comes beyond that waits for the next exchange
(``operations/quotas.py``). So in any ``t`` seconds the cluster admits at most ``burst + rate · t`` and, for
each process beside the first, :meth:`Quota.credit` more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from secrethub.crypto.digests import sha256
from secrethub.engines.lease_quotas import LEASE_COUNT, LeaseQuota, lease_quota_of
from secrethub.engines.mounts import Mount
from secrethub.engines.quota_scope import Scope, best
from secrethub.engines.throttle import site
from secrethub.errors import QuotaExceeded
from secrethub.storage.authority import QUOTAS, Authority, Row
from secrethub.storage.freshness import Caches, Changed
from secrethub.storage.quota_levels import Ask, Share

RATE_LIMIT = "rate-limit/"
"""Before a rate limit's name in the key of its row."""
CONFIG = "config"
"""Key of the row with what holds for all of them."""
MILLI = 1000
"""Rates are kept in thousandths, for rows hold whole numbers."""

GroupBy = Literal["none", "ip", "entity_then_ip", "entity_then_none"]

_ALWAYS_EXEMPT = ("sys/quotas/", "sys/generate-root/", "sys/rekey/", "sys/rekey-recovery-key/")
"""With these a quota that is too strict is put right, and a cluster saved."""
_BUDGETS = 20_000
_ALL = "all"
_UNKNOWN = "unknown"
_CREDIT_PART = 20
_PATIENCE = 2.0
"""Seconds that a request waits for an exchange."""

_log = logging.getLogger(__name__)


class Quota(Scope, frozen=True, kw_only=True):
    """A rate limit; its role is that of logins.

    Attributes:
        uuid: which one of that name.
        rate: thousandths of requests in ``interval``.
        interval: seconds.
        block_interval: seconds for which nothing is admitted once it was exceeded; 0 for none.
        group_by: whether everybody shares a budget.
    """

    uuid: str
    rate: int
    interval: int
    block_interval: int
    group_by: GroupBy

    @property
    def burst(self) -> float:
        """Requests at once."""
        return max(1.0, self.rate / MILLI)

    @property
    def per_second(self) -> float:
        """Requests a second in the long run."""
        return self.rate / MILLI / self.interval

    @property
    def credit(self) -> int:
        """Requests that a process admits before it was given a share."""
        return max(1, math.floor(self.burst / _CREDIT_PART))

    def group(self, address: str | None, entity: str | None) -> str:
        """Return whose budget a request spends."""
        if self.group_by == "none":
            return _ALL
        if self.group_by.startswith("entity") and entity is not None:
            return f"entity:{entity}"
        if self.group_by == "entity_then_none":
            return _ALL
        return f"ip:{_UNKNOWN if address is None else site(address)}"


class Budget:
    """What a process has of a budget, and what it owes to the others."""

    __slots__ = ("asked", "credit", "key", "owed", "paying", "quota", "share", "until", "waiting")

    def __init__(self, key: str, quota: Quota) -> None:
        self.key = key
        self.quota = quota
        self.credit = quota.credit
        self.share = 0.0
        self.owed = 0
        """Spent on credit since the last exchange began."""
        self.paying = 0
        """Spent on credit before it, while it has not ended."""
        self.asked = 0
        """Requests since the last exchange."""
        self.waiting = 0
        """Requests that wait for the next one."""
        self.until = 0.0
        """Monotonic seconds before which there is nothing to be had."""

    def spend(self, now: float) -> bool:
        """Spend one if that can be told without the others; False when the next exchange tells.

        Raises:
            QuotaExceeded: there is nothing left.
        """
        self.asked += 1
        if self.share >= 1:
            self.share -= 1
            return True
        if now < self.until:
            raise self.exceeded(now)
        if self.owed + self.paying < self.credit:
            self.owed += 1
            return True
        return False

    def exceeded(self, now: float) -> QuotaExceeded:
        """Return the error for a request that is one too many."""
        return QuotaExceeded("request rate limit exceeded", max(0.0, self.until - now))

    def ask(self) -> Ask:
        """Return what the exchange is asked; what is at hand is given back with it."""
        quota = self.quota
        return Ask(
            key=self.key,
            rate=quota.per_second,
            burst=quota.burst,
            back=self.share - self.owed,
            want=float(max(self.waiting, self.asked) + (1 if self.asked else 0)),
            need=float(self.waiting),
            block=float(quota.block_interval),
        )

    def lend(self) -> None:
        """Begin an exchange: until it ends only credit is spent."""
        self.paying, self.share, self.owed, self.asked = self.owed, 0.0, 0, 0

    def settle(self, share: Share, now: float) -> None:
        """Take over what an exchange gave."""
        self.paying = 0
        # Credit that was spent meanwhile is paid by what is left there; what is not left, by this share.
        paid = min(math.floor(share.granted), max(0, self.owed - max(0, math.floor(share.level))))
        self.owed -= paid
        self.share += share.granted - paid
        wait = share.blocked
        if share.granted < 1 and share.level < 1:
            wait = max(wait, (1 - share.level) / self.quota.per_second)
        self.until = now + wait if wait > 0 else 0.0
        # What is left there at most, for nobody may owe what there is not; nothing while there is a debt.
        self.credit = min(self.quota.credit, max(0, math.floor(share.level)))

    @property
    def idle(self) -> bool:
        """Whether there is nothing to settle."""
        return not (self.share or self.owed or self.asked or self.waiting)


class Exchange:
    """When budgets are exchanged: those who wait for it share one."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        """Set when somebody wants one."""
        self._next: asyncio.Future[None] | None = None

    async def next(self) -> None:
        """Wait for an exchange that begins from now on; not for long, should none come."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self.wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.shield(self._next)

    def begin(self) -> asyncio.Future[None]:
        """Begin one; return what is to be set when it has ended."""
        begun, self._next = self._next, None
        return begun or asyncio.get_running_loop().create_future()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The quotas that are in force.

    Attributes:
        rates: rate limits.
        leases: lease-count quotas.
        exempt: paths that are exempt from rate limits.
    """

    rates: tuple[Quota, ...] = ()
    leases: tuple[LeaseQuota, ...] = ()
    exempt: tuple[str, ...] = ()


class QuotaTable:
    """The quotas as this process knows them, and its budgets."""

    def __init__(self, authority: Authority, caches: Caches) -> None:
        self._authority = authority
        self._caches = caches
        self._known: Known | None = None
        self._budgets: OrderedDict[str, Budget] = OrderedDict()
        self.refused: dict[str, int] = {}
        """How many requests each quota refused since that was written down."""
        caches.subscribe(self._announced)
        caches.on_flush(self.drop)

    def _announced(self, change: Changed) -> None:
        if change.key.startswith(f"{QUOTAS.name}/") and change.kind in {"authority", "issued"}:
            self._known = None

    def drop(self) -> None:
        """Forget the quotas; the next request loads them."""
        self._known = None

    @property
    def none(self) -> bool:
        """Whether it is known that there are no rate limits."""
        return self._known is not None and not self._known.rates

    async def load(self) -> Known:
        """Return the quotas.

        A row that is not authentic limits nobody: quotas give no rights, and whoever can write to the
        database can do worse than lift one. It is reported.
        """
        if self._known is not None:
            return self._known
        moves = self._caches.authority_moves
        rows, broken = await self._authority.everything(QUOTAS)
        for trouble in broken.values():
            _log.error("a quota is not in force: %s", trouble)
        known = Known(
            rates=tuple(quota_of(row) for row in rows if row.key.startswith(RATE_LIMIT)),
            leases=tuple(lease_quota_of(row) for row in rows if row.key.startswith(LEASE_COUNT)),
            exempt=next((tuple(row.body["exempt"]) for row in rows if row.key == CONFIG), ()),
        )
        if moves == self._caches.authority_moves:
            self._known = known
        return known

    async def budget(
        self, path: str, mount: Mount | None, role: str | None, address: str | None, entity: str | None
    ) -> Budget | None:
        """Return the budget that a request spends, or None when nothing limits it."""
        known = await self.load()
        if not known.rates or path.startswith(_ALWAYS_EXEMPT) or any(map(_covers(path), known.exempt)):
            return None
        quota = best(known.rates, path, "" if mount is None else mount.path, role)
        if quota is None:
            return None
        key = sha256("quota", quota.uuid, quota.group(address, entity)).hex()
        budget = self._budgets.get(key)
        if budget is None or budget.quota != quota:
            budget = self._budgets[key] = Budget(key, quota)
            if len(self._budgets) > _BUDGETS:
                self._budgets.popitem(last=False)
        else:
            self._budgets.move_to_end(key)
        return budget

    def unsettled(self) -> list[Budget]:
        """Return the budgets of which the others must be told."""
        return [budget for budget in self._budgets.values() if not budget.idle]


def quota_of(row: Row) -> Quota:
    """Return the quota of a row."""
    return msgspec.convert(dict(row.body), Quota)


def _covers(path: str) -> Any:
    def covers(pattern: str) -> bool:
        return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern

    return covers


def told(quota: Quota) -> Mapping[str, Any]:
    """Return what is told of a quota, as Vault names it."""
    rate = quota.rate / MILLI
    return {
        "name": quota.name,
        "type": "rate-limit",
        "path": quota.path,
        "role": quota.role,
        "rate": int(rate) if rate.is_integer() else rate,
        "interval": quota.interval,
        "block_interval": quota.block_interval,
        "group_by": quota.group_by,
        "inheritable": not quota.path,
    }
