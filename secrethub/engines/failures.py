"""Failed attempts to log in under a name, counted in the database for all processes and restarts.

The rows are authenticated like all that decides: who writes to the database cannot let himself guess on.
Counting has transactions of its own, whose fence is the moment's: it rests on no decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from secrethub.auth.lockout import Failures, Lockout, attempted
from secrethub.engines.engine import Context
from secrethub.engines.own_changes import present_fence
from secrethub.errors import PermissionDenied, Stale, Unavailable
from secrethub.storage.authority import LOGIN_FAILURES, Change, Row

_ATTEMPTS = 8


def failures_of(row: Row) -> Failures:
    """Return the failures of a row."""
    return msgspec.convert(dict(row.body), Failures)


def lockout_of(settings: Mapping[str, Any]) -> Lockout:
    """Return what the settings of a mount say about locking names."""
    return msgspec.convert(settings.get("lockout", {}), Lockout)


async def begin_attempt(context: Context, key: str, name: str) -> None:
    """Count an attempt before it is looked at.

    Args:
        context: of the login.
        key: of the row.
        name: that is claimed.

    Raises:
        PermissionDenied: the name is locked; nothing was counted.
    """
    rules = lockout_of(context.mount_settings)
    if rules.disabled:
        return

    async def count(change: Change) -> None:
        row = await change.get(LOGIN_FAILURES, key)
        known = None if row is None else failures_of(row)
        if known is not None and known.locked(context.now, rules):
            raise PermissionDenied(f"the name {name} is locked after {known.count} failed logins")
        body = msgspec.to_builtins(attempted(known, context.mount_id, name, context.now, rules))
        until = context.now + timedelta(seconds=max(rules.reset, rules.duration))
        await change.put(LOGIN_FAILURES, key, body, expires_at=until)

    await _now(context, count)


async def take_back(context: Context, key: str) -> None:
    """Take back one attempt that was neither right nor wrong."""

    async def uncount(change: Change) -> None:
        row = await change.get(LOGIN_FAILURES, key)
        if row is None:
            return
        known = failures_of(row)
        if known.count > 1:
            body = msgspec.to_builtins(msgspec.structs.replace(known, count=known.count - 1))
            await change.put(LOGIN_FAILURES, key, body, expires_at=row.expires_at)
        else:
            await change.delete(LOGIN_FAILURES, key)

    await _now(context, uncount)


async def _now(context: Context, work: Callable[[Change], Awaitable[None]]) -> None:
    """Do ``work`` in a transaction at the present generation."""
    core = context.core
    for _ in range(_ATTEMPTS):
        try:
            async with core.authority.issue(present_fence(core, context.fence.written)) as change:
                await work(change)
        except Stale:
            await core.ledger.look()
        else:
            return
    raise Unavailable("authority changes faster than an attempt can be counted")
