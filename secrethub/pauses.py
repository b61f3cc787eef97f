"""How long to wait before what failed is tried again: twice as long each time, up to a bound. Pure."""

from __future__ import annotations

_DOUBLED = 32
"""Times that a pause is doubled: more than it takes to any bound, and no more than a number can hold."""


def growing(first: float, failures: int, longest: float, chance: float = 1.0) -> float:
    """Return the seconds to wait.

    Args:
        first: seconds after a first failure, at most.
        failures: in a row, before the last one; 0 or more.
        longest: seconds that a pause has at most.
        chance: 0 to 1, at random: the second half of each pause is. 1 for all of it.
    """
    most: float = min(first * 2.0 ** min(failures, _DOUBLED), longest)
    return most * (0.5 + chance / 2)
