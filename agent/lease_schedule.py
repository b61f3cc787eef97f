"""When a lease is renewed, and when what it is of is made anew. Pure.

Both happen at a random point between one half and two thirds of the lease, so that agents that began together
do not come together, and a third of it is left for a Core that is away. A lease that is renewed for less than
it was made for has come near its maximum: the next time its credentials are made anew. Then the old ones are
good for a third of their last lease still, for whoever has them open.

Instants are seconds of the boot clock, which nobody sets and which goes on while the host sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from secrethub.wire.messages import Issued

EARLIEST, LATEST = 1 / 2, 2 / 3
"""Shares of a lease between which it is renewed."""
_LAST = 1 / 6
"""Share of a lease in which it is handed to nobody any more if anything else can be had."""
_CAPPED = 0.95
"""Share of what a lease was made for, below which a renewal has met the maximum."""
_LONGEST_PAUSE = 30.0

Spread = Callable[[float], float]
"""Returns a random number between 0 and its argument."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """Credentials that are held.

    Attributes:
        data: JSON; secret.
        lease_id: Core's.
        duration: seconds that it was made for.
        lasts: seconds that it had when it was made or renewed last.
        ends: when it ends unless renewed.
        due: when to do something about it.
        renewable: whether renewing is of use.
        failures: how often in a row nothing could be done about it.
    """

    data: bytes = field(repr=False)
    lease_id: str
    duration: float
    lasts: float
    ends: float
    due: float
    renewable: bool
    failures: int = 0

    def serves(self, now: float) -> bool:
        """Tell whether it is handed out without a thought."""
        return now < self.ends - self.lasts * _LAST

    def is_good(self, now: float) -> bool:
        """Tell whether it has not ended."""
        return now < self.ends


def made(issued: Issued, data: bytes, asked_at: float, spread: Spread) -> Lease:
    """Return what was made, counted from the instant at which it was asked for."""
    lasts = float(issued.lease_duration)
    return Lease(
        data=data,
        lease_id=issued.lease_id,
        duration=lasts,
        lasts=lasts,
        ends=asked_at + lasts,
        due=_due(asked_at, lasts, spread),
        renewable=issued.renewable,
    )


def renewed(lease: Lease, seconds: int, asked_at: float, spread: Spread) -> Lease:
    """Return a lease that Core has renewed for so many seconds."""
    lasts = float(seconds)
    return replace(
        lease,
        lasts=lasts,
        ends=asked_at + lasts,
        due=_due(asked_at, lasts, spread),
        renewable=lasts >= lease.duration * _CAPPED,
        failures=0,
    )


def postponed(lease: Lease, now: float, spread: Spread) -> Lease:
    """Return a lease about which nothing could be done now: again soon, and sooner the less is left."""
    within = min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(lease.failures, 16), max(lease.ends - now, 0.0) / 2)
    due = now + max(within / 4, 0.1) + spread(within)
    return replace(lease, due=min(due, max(lease.ends, now + 0.1)), failures=lease.failures + 1)


def left_alone(lease: Lease, now: float) -> Lease:
    """Return a lease that is to end by itself."""
    return replace(lease, due=max(lease.ends, now + 0.1))


def hurried(lease: Lease, now: float) -> Lease:
    """Return a lease about which something may be done now that failed before."""
    return replace(lease, due=min(lease.due, now)) if lease.failures else lease


def _due(asked_at: float, lasts: float, spread: Spread) -> float:
    return asked_at + lasts * EARLIEST + spread(lasts * (LATEST - EARLIEST))
