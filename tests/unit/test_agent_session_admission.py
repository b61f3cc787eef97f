"""How a herd of agents is let in: at a bearable rate, everybody else with a turn of their own."""

from __future__ import annotations

import resource
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serve.agent_gateway.admission import Admission, Later, Visits
from serve.agent_gateway.listener import allow_descriptors


def test_a_burst_is_let_in_and_the_rest_queues() -> None:
    """As many as the burst get in at once; each further one is told a later time than the one before."""
    admission = Admission(rate=10, burst=3, capacity=100)
    assert [admission.admit(5.0, n) for n in range(3)] == [None] * 3
    later = [admission.admit(5.0, 3) for _ in range(50)]
    waits = [refused.retry_after for refused in later if isinstance(refused, Later)]
    assert len(waits) == 50
    assert all(first < second for first, second in pairwise(waits))


def test_a_full_gateway_lets_nobody_in() -> None:
    """At capacity agents are sent away however long it was quiet."""
    admission = Admission(rate=10, burst=3, capacity=2)
    assert admission.admit(0.0, 1) is None
    assert isinstance(admission.admit(1000.0, 2), Later)


def test_nobody_is_sent_away_for_long() -> None:
    """However many come, the hint stays within bounds."""
    admission = Admission(rate=1, burst=1, capacity=10**9)
    hints = [admission.admit(0.0, 0) for _ in range(100_000)]
    assert max(hint.retry_after for hint in hints if hint is not None) <= 120


@given(
    arrivals=st.lists(st.floats(0, 2, allow_nan=False), max_size=200),
    rate=st.integers(1, 50),
    burst=st.integers(1, 20),
)
def test_the_rate_is_never_exceeded(arrivals: list[float], rate: int, burst: int) -> None:
    """In any stretch of time at most burst plus rate times its length get in."""
    admission = Admission(rate=rate, burst=burst, capacity=10**9)
    now = 100.0
    admitted = []
    for pause in arrivals:
        now += pause
        if admission.admit(now, 0) is None:
            admitted.append(now)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= burst + rate * (admitted[last] - admitted[first]) + 1e-6


def test_who_comes_back_in_turn_gets_in() -> None:
    """A herd that obeys its hints is in after little more than its size over the rate."""
    admission = Admission(rate=100, burst=10, capacity=10**9)
    waiting = [(0.0, agent) for agent in range(1000)]
    last = 0.0
    tries = 0
    while waiting:
        waiting.sort()
        now, agent = waiting.pop(0)
        tries += 1
        later = admission.admit(now, 0)
        if later is None:
            last = now
        else:
            waiting.append((now + later.retry_after, agent))
    assert last < 20
    assert tries < 5000


def test_one_agent_cannot_take_all_turns() -> None:
    """Visits in a row are limited for each agent; later, and for others, the door is open."""
    visits = Visits(every=2.0, burst=3, known=100)
    assert [visits.admit("a", 10.0) for _ in range(3)] == [None] * 3
    for _ in range(1000):
        assert visits.admit("a", 10.0) == Later(retry_after=2.0)
    assert visits.admit("b", 10.0) is None
    assert visits.admit("a", 12.0) is None
    assert isinstance(visits.admit("a", 12.0), Later)


def test_only_so_many_agents_are_remembered() -> None:
    """What is kept of visits is bounded, and who came last stays."""
    visits = Visits(every=2.0, burst=1, known=3)
    for number in range(50):
        assert visits.admit(f"agent-{number}", 10.0) is None
    assert len(visits._due) == 3
    assert isinstance(visits.admit("agent-49", 10.0), Later)


def test_the_limit_of_open_files_makes_room_for_agents() -> None:
    """A low soft limit is raised as far as needed and allowed, a high one is left alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**30 if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, most), hard))
        allow_descriptors(2000)
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (min(3024, most), hard)
        allow_descriptors(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
