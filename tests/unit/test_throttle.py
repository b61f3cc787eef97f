"""The bound on requests without an identity: for all together and for each address."""

from __future__ import annotations

import pytest

from secrethub.engines.throttle import Throttle
from secrethub.errors import TooManyRequests


def admitted(throttle: Throttle, now: float, address: str | None = None, tries: int = 1000) -> int:
    """Return how many of ``tries`` requests at one instant are admitted."""
    count = 0
    for _ in range(tries):
        try:
            throttle.admit(now, address)
        except TooManyRequests:
            continue
        count += 1
    return count


def test_burst_and_rate() -> None:
    """At once a burst is admitted, then as many as time brings, and never more than a burst again."""
    throttle = Throttle(rate=2, burst=10)
    assert admitted(throttle, 0.0) == 10
    assert admitted(throttle, 0.4) == 0
    assert admitted(throttle, 3.0) == 6
    assert admitted(throttle, 1000.0) == 10


def test_one_address_does_not_use_up_the_others_share() -> None:
    """An address is held to its own bound, and the rest is there for others."""
    throttle = Throttle(rate=1, burst=100, address_rate=1, address_burst=10)
    assert admitted(throttle, 0.0, "10.0.0.1") == 10
    assert admitted(throttle, 0.0, "10.0.0.2") == 10
    assert sum(admitted(throttle, 0.0, f"10.0.1.{n}") for n in range(20)) == 80


def test_those_without_an_address_share_one_bound() -> None:
    """Clients whose address is unknown cannot lock out those whose address is known."""
    throttle = Throttle(rate=1, burst=100, address_rate=1, address_burst=10)
    assert admitted(throttle, 0.0) == 10
    assert admitted(throttle, 0.0, "10.0.0.1") == 10


def test_addresses_of_one_host_count_as_one() -> None:
    """An IPv6 host has one share for its network, and an IPv4 address in IPv6 spelling is itself."""
    throttle = Throttle(rate=1, burst=100, address_rate=1, address_burst=10)
    assert admitted(throttle, 0.0, "2001:db8::1") == 10
    assert admitted(throttle, 0.0, "2001:db8::ffff:2") == 0
    assert admitted(throttle, 0.0, "2001:db8:0:1::1") == 10
    assert admitted(throttle, 0.0, "10.0.0.1") == 10
    assert admitted(throttle, 0.0, "::ffff:10.0.0.1") == 0


def test_what_is_given_back_can_be_had_again() -> None:
    """A request that turned out to have an identity does not count."""
    throttle = Throttle(rate=0.001, burst=5, address_rate=0.001, address_burst=3)
    for _ in range(50):
        throttle.admit(0.0, "10.0.0.1")
        throttle.give_back("10.0.0.1")
    assert admitted(throttle, 0.0, "10.0.0.1") == 3
    for _ in range(50):
        throttle.give_back("10.0.0.1")
    assert admitted(throttle, 0.0, "10.0.0.1") == 3


def test_refusals_are_counted_once() -> None:
    """What was refused is counted until it is taken, and says how long to wait."""
    throttle = Throttle(rate=0.5, burst=1)
    throttle.admit(0.0)
    with pytest.raises(TooManyRequests) as caught:
        throttle.admit(0.0)
    assert caught.value.retry_after == pytest.approx(2.0)
    assert throttle.take_refused() == 1
    assert throttle.take_refused() == 0


def test_memory_is_bounded() -> None:
    """However many addresses come, few are remembered."""
    throttle = Throttle(rate=1, burst=10**9, address_rate=1, address_burst=1)
    for n in range(30_000):
        throttle.admit(0.0, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(throttle._addresses) <= 10_000


def test_a_clock_that_stands_or_goes_back_admits_nothing_more() -> None:
    """Time that goes back neither fills nor empties a bucket."""
    throttle = Throttle(rate=10, burst=2)
    assert admitted(throttle, 100.0) == 2
    assert admitted(throttle, 50.0) == 0
    assert admitted(throttle, 100.15) == 1
