"""When the end of a lease is tried again, and when a target is left alone. Pure.

A target that is away takes no lease with it: the pauses grow to ten minutes, and a lease is only given up
after some three hours. Whatever else its target can do meanwhile is not hindered, for the target as a whole
is left alone while it does not answer, and then asked about one lease.
"""

from __future__ import annotations

from dataclasses import dataclass

from secrethub.pauses import growing

_FAILURES = 3
_FIRST_REST = 1.0
_LONGEST_REST = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How often, and after what pauses, the end of a lease is tried.

    Attributes:
        first: seconds after the first attempt; each pause is twice the one before.
        longest: seconds that a pause has at most.
        attempts: after which a lease is a dead letter: nobody tries again by himself.
    """

    first: float = 1.0
    longest: float = 600.0
    attempts: int = 24

    def pause(self, attempts: int, chance: float) -> float | None:
        """Return the seconds until the next attempt; None for no further one.

        Args:
            attempts: made so far, 1 or more.
            chance: 0 to 1, at random: the second half of each pause is.
        """
        if attempts >= self.attempts:
            return None
        return growing(self.first, attempts - 1, self.longest, chance)


USUAL = Retries()
"""What servers do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Breaker:
    """What is known of a target that did not answer. A value: each answer gives the next one.

    Attributes:
        failures: times in a row that it did not answer.
        opens_at: instant, on a monotonic clock, from which it is asked again, about one lease.
    """

    failures: int = 0
    opens_at: float = 0.0

    @property
    def probing(self) -> bool:
        """Whether it is to be asked about one lease only."""
        return self.failures >= _FAILURES

    def rests(self, now: float) -> bool:
        """Tell whether it is left alone."""
        return now < self.opens_at

    def failed(self, now: float) -> Breaker:
        """Return what is known once it did not answer at ``now``."""
        count = self.failures + 1
        if count < _FAILURES:
            return Breaker(failures=count)
        rest = growing(_FIRST_REST, count - _FAILURES, _LONGEST_REST)
        return Breaker(failures=count, opens_at=now + rest)
