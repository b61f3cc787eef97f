"""Time as an argument: rules take instants, only the edges hold a :class:`Clock`.

Rows and entries have instants as microseconds since the epoch.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What the edges read. Tests pass their own."""

    def now(self) -> datetime:
        """The wall clock, timezone-aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The operating system's clocks."""

    def now(self) -> datetime:
        """The wall clock, timezone-aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back and counts while the process is stopped."""
        return time.monotonic()


def micros(instant: datetime) -> int:
    """Return the microseconds from the epoch to an instant; what is less is cut off."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_micros(number: int) -> datetime:
    """Return the instant in UTC that lies so many microseconds after the epoch."""
    return _EPOCH + timedelta(microseconds=number)
