"""Lease-count quotas: how many leases there may be, of all, of a mount, below a path, or of an engine's role.

The most specific quota of a request is the only one that counts. It counts every lease that it is about,
those included that are being made or ended, and those whose end was given up: all of them may still be
something at a target. How many there are is looked at in the transaction that plans one more
(``storage/lease_makings.py``), so it holds exactly, on however many nodes leases are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from secrethub.engines.quota_scope import Scope, best
from secrethub.storage.authority import Row
from secrethub.storage.lease_makings import Bound

LEASE_COUNT = "lease-count/"
"""Before a quota's name in the key of its row."""


class LeaseQuota(Scope, frozen=True, kw_only=True):
    """How many leases there may be; its role is that of an engine.

    Attributes:
        max_leases: at once.
    """

    max_leases: int


def lease_quota_of(row: Row) -> LeaseQuota:
    """Return the quota of a row."""
    return msgspec.convert(dict(row.body), LeaseQuota)


def bound_of(
    quotas: Iterable[LeaseQuota], path: str, *, mount: str, mount_id: str, role: str
) -> Bound | None:
    """Return how many leases there may be of those that a request asks one more of; None for any number.

    Args:
        quotas: all of them.
        path: of the request.
        mount: path of the mount that it asks.
        mount_id: UUID of that mount.
        role: that it asks for.
    """
    quota = best(quotas, path, mount, role)
    return None if quota is None else bound(quota, mount_id)


def bound(quota: LeaseQuota, mount_id: str) -> Bound:
    """Return what a quota is about, as leases are counted by.

    Args:
        quota: which.
        mount_id: UUID of the mount that it is about; not asked for where it is about everything.
    """
    if not quota.path:
        return Bound(name=quota.name, most=quota.max_leases)
    below = "" if quota.path == quota.mount else quota.path
    begins = below.endswith("*")
    return Bound(
        name=quota.name,
        most=quota.max_leases,
        mount=mount_id,
        role=quota.role,
        path="" if begins else below,
        prefix=below[:-1] if begins else "",
    )


def told(quota: LeaseQuota, counter: int) -> Mapping[str, Any]:
    """Return what is told of a quota, as Vault names it.

    Args:
        quota: which.
        counter: leases that it counts now.
    """
    return {
        "name": quota.name,
        "type": "lease-count",
        "path": quota.path,
        "role": quota.role,
        "max_leases": quota.max_leases,
        "counter": counter,
        "inheritable": not quota.path,
    }
