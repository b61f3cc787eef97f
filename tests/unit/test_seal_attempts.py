"""When key services are asked again, whatever happened before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secrethub.seal.attempts import FIRST_PAUSE, LONGEST_PAUSE, Attempts

_CHANCE = st.floats(0, 1)
_NOW = st.floats(0, 1e9)


def test_at_first_they_are_asked_at_once() -> None:
    """Nobody waits before the first attempt."""
    assert Attempts().due(0.0)


@given(failures=st.integers(0, 10**7), now=_NOW, chance=_CHANCE)
def test_no_pause_is_too_short_or_too_long(failures: int, now: float, chance: float) -> None:
    """After any number of failures a pause has some length, half of which is not by chance, and a bound."""
    after = Attempts(failures=failures).failed(now, chance)
    most = min(FIRST_PAUSE * 2 ** min(failures, 10), LONGEST_PAUSE)
    assert after.failures == failures + 1
    assert not after.due(now + most * 0.49)
    assert after.due(now + most + 1e-6)


@given(failures=st.integers(0, 10**7))
def test_pauses_grow_and_are_spread(failures: int) -> None:
    """Each pause is longer than the one before until it is the longest, and chance decides about its half."""
    before, after = Attempts(failures=failures), Attempts(failures=failures + 1)
    least, most = (before.failed(0.0, chance).due_at for chance in (0.0, 1.0))
    assert most == 2 * least
    assert after.failed(0.0, 0.0).due_at == min(2 * least, LONGEST_PAUSE / 2)
