"""When key services are asked again to open the cluster. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from secrethub.pauses import growing

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between two attempts, at most; half of it at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """What is known of attempts that failed. A value: each failure gives the next one.

    Attributes:
        failures: in a row.
        due_at: instant, on a monotonic clock, from which the services are asked again.
    """

    failures: int = 0
    due_at: float = 0.0

    def due(self, now: float) -> bool:
        """Tell whether the services are to be asked."""
        return now >= self.due_at

    def failed(self, now: float, chance: float) -> Attempts:
        """Return what is known once an attempt failed.

        Args:
            now: the instant.
            chance: 0 to 1, at random: the second half of each pause is.
        """
        pause = growing(FIRST_PAUSE, self.failures, LONGEST_PAUSE, chance)
        return Attempts(failures=self.failures + 1, due_at=now + pause)
