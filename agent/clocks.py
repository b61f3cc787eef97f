"""Two clocks at once: a deadline holds only while both say so.

The wall clock can be set back; the boot clock cannot, and it counts while the host sleeps, but it
begins again at every boot.
"""

from __future__ import annotations

import time
from typing import NamedTuple


class Instant(NamedTuple):
    """One moment on both clocks, in seconds."""

    wall: float
    boot: float

    def after(self, seconds: float) -> Instant:
        """Return the moment so many seconds later."""
        return Instant(self.wall + seconds, self.boot + seconds)

    def before(self, deadline: Instant) -> bool:
        """Tell whether the deadline is still ahead on both clocks."""
        return self.wall < deadline.wall and self.boot < deadline.boot


def read_clocks() -> Instant:
    """Read both clocks."""
    return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))
