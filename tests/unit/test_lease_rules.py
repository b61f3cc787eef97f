"""How long leases live, and when their end is tried again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.leases.deadlines import Terms, first_deadlines, renewed, seconds_left, terms
from secrethub.leases.lease import Lease, lease_mac
from secrethub.leases.retry import USUAL, Breaker, Retries

HOUR = 3600
MICROS = 1_000_000
LEASE = Lease(
    id="db/creds/app/x",
    revision=1,
    state="live",
    mount="m",
    role="app",
    target="t",
    owner="o",
    owner_name="n",
    lineage=("o", "p"),
    issued_at=1,
    renewed_at=2,
    expires_at=3,
    max_expires_at=4,
    renewable=True,
    sealed=b"sealed",
)


@pytest.mark.parametrize(
    ("given_", "ttl", "max_ttl"),
    [
        ({}, 768 * HOUR, 768 * HOUR),
        ({"ttl": HOUR}, HOUR, 768 * HOUR),
        ({"mount_ttl": HOUR}, HOUR, 768 * HOUR),
        ({"ttl": HOUR, "mount_ttl": 2 * HOUR}, HOUR, 768 * HOUR),
        ({"ttl": 3 * HOUR, "max_ttl": 2 * HOUR}, 2 * HOUR, 2 * HOUR),
        ({"ttl": 3 * HOUR, "max_ttl": 2 * HOUR, "mount_max_ttl": HOUR}, HOUR, HOUR),
        ({"max_ttl": 1000 * HOUR}, 768 * HOUR, 768 * HOUR),
    ],
)
def test_the_narrowest_bound_holds(given_: dict[str, int], ttl: int, max_ttl: int) -> None:
    """A role's lifetime holds within its mount's, and both within the cluster's."""
    asked = {"ttl": 0, "max_ttl": 0, "mount_ttl": 0, "mount_max_ttl": 0, "most": 768 * HOUR, **given_}
    found = terms(**asked)
    assert (found.ttl, found.max_ttl) == (ttl, max_ttl)


@given(
    now=st.integers(0, 10**16),
    ttl=st.integers(1, 10**6),
    longer=st.integers(0, 10**6),
    increments=st.lists(st.integers(1, 10**7), max_size=20),
    life=st.integers(0, 10**7),
)
def test_no_renewal_passes_the_maximum_or_the_owner(
    now: int, ttl: int, longer: int, increments: list[int], life: int
) -> None:
    """However often a lease is renewed, it ends at its maximum and with its owner at the latest."""
    owner = now + life * MICROS if life else 0
    until, most = first_deadlines(now, Terms(ttl=ttl, max_ttl=ttl + longer, owner_ends=owner))
    assert most == now + (ttl + longer) * MICROS
    at = now
    for increment in increments:
        assert until <= most
        assert not owner or until <= owner
        at = until
        until = renewed(at, increment, max_expires_at=most, owner_ends=owner)
    assert seconds_left(at, until) >= 0


def test_pauses_grow_and_end() -> None:
    """The first pause is short, none is longer than ten minutes, and an outage of an hour ends no lease."""
    attempts = range(1, USUAL.attempts)
    rests = [USUAL.pause(attempt, 0.0) for attempt in attempts]
    assert rests[0] == 0.5
    assert rests == sorted(rests, key=lambda rest: rest or 0)
    assert max(USUAL.pause(attempt, 1.0) or 0 for attempt in attempts) == 600
    assert sum(rest or 0 for rest in rests) > HOUR
    assert USUAL.pause(USUAL.attempts, 0.5) is None
    few = Retries(first=0.1, longest=0.3, attempts=4)
    assert [few.pause(attempt, 1.0) for attempt in range(1, 5)] == [0.1, 0.2, 0.3, None]


def test_a_target_rests_after_failures_and_is_asked_again() -> None:
    """Three failures in a row let a target rest, each further one for longer, up to a minute."""
    breaker = Breaker()
    for _ in range(2):
        breaker = breaker.failed(100.0)
        assert not breaker.rests(100.0)
        assert not breaker.probing
    breaker = breaker.failed(100.0)
    assert breaker.probing
    assert breaker.rests(100.9)
    assert not breaker.rests(101.0)
    # A day at a minute each, and more.
    for _ in range(2000):
        breaker = breaker.failed(200.0)
    assert breaker.rests(259.9)
    assert not breaker.rests(260.0)


@pytest.mark.parametrize("name", [name for name in Lease.__struct_fields__ if name != "sealed"])
def test_everything_that_a_lease_is_is_authenticated(name: str) -> None:
    """A row with any other value than the one written has another authentication."""
    value = getattr(LEASE, name)
    other: object = (*value, "q") if isinstance(value, tuple) else not value if value is True else value * 2
    changed = msgspec.structs.replace(LEASE, **{name: "intent" if name == "state" else other})
    assert lease_mac(bytes(32), changed) != lease_mac(bytes(32), LEASE)
    assert lease_mac(bytes(32), msgspec.structs.replace(LEASE)) == lease_mac(bytes(32), LEASE)


def test_what_a_lease_seals_is_not_shown() -> None:
    """Whoever prints a lease sees which it is, and nothing of what its engine knows."""
    assert LEASE.id in repr(LEASE)
    assert "sealed" not in repr(LEASE)
