"""How long the agent waits before it tries again."""

from __future__ import annotations

import random

from agent.backoff import BASE, CAP, Backoff


def test_waits_grow_and_are_spread_over_the_whole_interval() -> None:
    """The n-th wait lies anywhere between nothing and base times two to the n, capped."""
    waits = [[0.0] * 10 for _run in range(300)]
    for run in range(300):
        backoff = Backoff(random.Random(run))
        waits[run] = [backoff.next() for _failure in range(10)]
    for failure in range(10):
        ceiling = min(CAP, BASE * 2**failure)
        seen = [run[failure] for run in waits]
        assert 0 <= min(seen) < ceiling * 0.05
        assert ceiling * 0.95 < max(seen) <= ceiling


def test_a_reset_begins_anew() -> None:
    """After success the next wait is short again, whatever came before."""
    backoff = Backoff(random.Random(1))
    backoff.slow_down()
    assert max(backoff.next() for _try in range(50)) > 10
    backoff.reset()
    assert backoff.next() <= BASE


def test_many_failures_do_not_overflow() -> None:
    """After any number of failures the wait stays within the cap."""
    backoff = Backoff(random.Random(1))
    assert all(backoff.next() <= CAP for _failure in range(5_000))


def test_shuffling_keeps_everything() -> None:
    """The order is random, the items are the same, the argument is left alone."""
    items = ["a", "b", "c", "d"]
    orders = {tuple(Backoff(random.Random(n)).shuffled(items)) for n in range(100)}
    assert len(orders) > 10
    assert all(sorted(order) == items for order in orders)
    assert items == ["a", "b", "c", "d"]
