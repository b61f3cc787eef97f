"""What a quota is about, and which of several counts: the most specific one, alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a quota is about.

    Attributes:
        name: of the quota.
        path: mount, or path below one, perhaps with a trailing ``*``; empty for everything.
        mount: path of the mount that ``path`` is or lies below; empty for everything.
        role: that it is about alone; empty for whatever is asked.
    """

    name: str
    path: str
    mount: str
    role: str


S = TypeVar("S", bound=Scope)


def best(quotas: Iterable[S], path: str, mount: str, role: str | None) -> S | None:
    """Return the quota that counts for a request, or None.

    Args:
        quotas: all of them.
        path: the canonical path.
        mount: path of the mount that answers it, or empty where nothing does.
        role: that the request is about, or None.
    """
    found: tuple[tuple[int, int], S] | None = None
    for quota in quotas:
        rank = _rank(quota, path, mount, role)
        if rank is not None and (found is None or rank > found[0]):
            found = rank, quota
    return None if found is None else found[1]


def _rank(quota: Scope, path: str, mount: str, role: str | None) -> tuple[int, int] | None:
    """Return how specific a quota is for a request; None when it does not apply."""
    if not quota.path:
        return 0, 0
    if mount != quota.mount:
        return None
    if quota.path == quota.mount:
        if quota.role:
            return (4, 0) if role == quota.role else None
        return 1, 0
    if quota.path.endswith("*"):
        return (2, len(quota.path)) if path.startswith(quota.path[:-1]) else None
    return (3, 0) if path == quota.path else None
