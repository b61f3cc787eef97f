"""The test that tells whether failed logins take equally long."""

from __future__ import annotations

import random

from bench.login_timing import mann_whitney


def test_mann_whitney() -> None:
    """Samples of one distribution are not told apart, shifted ones are, in whichever order."""
    chance = random.Random(7)
    one, other = ([chance.gauss(2, 0.2) for _ in range(500)] for _ in range(2))
    assert mann_whitney(one, other) > 0.05
    assert mann_whitney(one, [value + 0.05 for value in other]) < 0.001
    assert mann_whitney([1.0] * 30, [1.0] * 30) == 1.0
    assert abs(mann_whitney(one, other) - mann_whitney(other, one)) < 1e-12
