"""When leases are renewed: within their time, never in a hurry, never after their end."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.lease_schedule import Lease, hurried, left_alone, made, postponed, renewed
from secrethub.wire.messages import Issued

instants = st.floats(0, 1e9)
lengths = st.integers(1, 10**7)


def spread(seed: int) -> random.Random:
    """Return a source of chance."""
    return random.Random(seed)


def lease(seconds: int, asked_at: float = 0.0, seed: int = 0, *, renewable: bool = True) -> Lease:
    """Return a lease that was just made."""
    issued = Issued(id=1, path="p", data={}, lease_id="p/1", lease_duration=seconds, renewable=renewable)
    return made(issued, b"{}", asked_at, lambda within: spread(seed).uniform(0, within))


@given(lengths, instants, st.integers())
def test_renewed_between_a_half_and_two_thirds(seconds: int, asked_at: float, seed: int) -> None:
    """The moment lies between one half and two thirds of the lease, and the lease serves until after it."""
    one = lease(seconds, asked_at, seed)
    assert asked_at + seconds / 2 <= one.due <= asked_at + seconds * 2 / 3 + 1e-6 * (1 + asked_at)
    assert one.ends == asked_at + seconds
    assert one.serves(one.due)
    assert not one.serves(one.ends)
    assert not one.is_good(one.ends)


def test_the_moments_differ() -> None:
    """Leases that were made together are not renewed together."""
    assert len({round(lease(3600, seed=seed).due) for seed in range(50)}) > 40


@given(lengths, st.integers(0, 10**7), st.integers())
def test_a_renewal_that_meets_the_maximum_is_the_last(seconds: int, given_now: int, seed: int) -> None:
    """As long as a renewal gives what the lease was made for it is renewed again, else made anew."""
    one = lease(seconds, seed=seed)
    again = renewed(one, given_now, one.due, lambda within: spread(seed).uniform(0, within))
    assert again.renewable == (given_now >= 0.95 * seconds)
    assert one.due <= again.due <= again.ends == one.due + given_now
    assert again.is_good(one.due) == (given_now > 0)
    assert again.duration == one.duration
    assert again.failures == 0


@given(lengths, st.floats(0, 2), st.integers())
def test_what_fails_is_tried_again(seconds: int, share: float, seed: int) -> None:
    """Never at once, at most half a minute later, and by the lease's end."""
    one, now = lease(seconds), seconds * share
    for _ in range(20):
        one = postponed(one, now, lambda within: spread(seed).uniform(0, within))
        assert now < one.due <= max(one.ends, now + 0.11)
        assert one.due <= now + 45
        now = one.due
    assert one.failures == 20


def test_hurry_is_for_what_failed() -> None:
    """A connection that is back is a reason to try again, and none to renew what is not due."""
    one = lease(3600)
    assert hurried(one, 5.0) == one
    assert hurried(postponed(one, 1.0, lambda _within: 30.0), 2.0).due == 2.0


def test_what_is_left_alone_is_looked_at_when_it_ends() -> None:
    """And soon, if it has ended already."""
    assert left_alone(lease(10), 3.0).due == 10.0
    assert 20.0 < left_alone(lease(10), 20.0).due < 21.0


def test_no_value_in_repr() -> None:
    """Shown, a lease shows nothing of what it is of."""
    assert "data" not in repr(lease(10))
