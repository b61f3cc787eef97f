"""How long to wait before trying again: exponential, with full jitter.

A herd that lost the same gateway at the same instant spreads evenly over the whole interval.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

BASE = 0.5
"""Seconds within which the first new try happens."""
CAP = 30.0
"""Seconds that no wait exceeds."""


class Backoff:
    """Counts failures in a row.

    Args:
        source: where the jitter comes from; not a secret.
    """

    def __init__(self, source: random.Random | None = None) -> None:
        self._random = source or random.Random()  # noqa: S311 - spreads load, hides nothing
        self._failures = 0

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        ceiling = min(CAP, BASE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._random.uniform(0.0, ceiling)

    def slow_down(self) -> None:
        """Wait as after many failures: the other end said that coming back soon is of no use."""
        self._failures = max(self._failures, 16)

    def reset(self) -> None:
        """Forget past failures."""
        self._failures = 0

    def shuffled(self, items: Iterable[str]) -> list[str]:
        """Return the items in a random order."""
        mixed = list(items)
        self._random.shuffle(mixed)
        return mixed

    def jitter(self, within: float) -> float:
        """Return a random moment within so many seconds."""
        return self._random.uniform(0.0, within)
