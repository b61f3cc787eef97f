"""Networks that credentials are bound to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.auth.networks import bounds_somebody, covered, intersection, parse_networks, within
from secrethub.errors import InvalidRequest


def test_canonical_forms() -> None:
    """Host bits, bare addresses and IPv4 written as IPv6 become the networks that they mean."""
    given = ["10.1.2.3/8", "10.0.0.1", "::ffff:10.0.0.0/104", " 2001:DB8::1/32 "]
    assert parse_networks(given) == ["10.0.0.0/8", "10.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]
    for wrong in (["10.0.0.0/33"], ["host"], [""], ["10.0.0.0/8"] * 65):
        with pytest.raises(InvalidRequest):
            parse_networks(wrong)


def test_who_is_within() -> None:
    """An unknown address is in no network; without networks everybody is let in."""
    networks = ["10.0.0.0/8", "2001:db8::/32"]
    for address in ("10.255.0.1", "::ffff:10.0.0.1", "2001:db8::1"):
        assert within(address, networks)
    for address in ("11.0.0.1", "::1", None, "", "unix", "10.0.0.1:80"):
        assert not within(address, networks)
        assert within(address, [])


NETWORKS = st.lists(
    st.sampled_from(
        ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32"]
    ),
    max_size=4,
)
ADDRESSES = (
    "10.1.2.3",
    "10.1.9.9",
    "10.9.9.9",
    "192.0.2.7",
    "198.51.100.1",
    "2001:db8::1",
    "2001:db9::1",
    None,
)


@given(NETWORKS, NETWORKS)
def test_an_address_is_in_the_intersection_if_it_is_in_both(one: list[str], other: list[str]) -> None:
    """Networks of two origins together let in exactly what each of them lets in."""
    both = intersection(one, other)
    for address in ADDRESSES:
        assert (both is not None and within(address, both)) == (
            within(address, one) and within(address, other)
        )


@given(NETWORKS, NETWORKS)
def test_what_is_covered_lets_nobody_else_in(inner: list[str], outer: list[str]) -> None:
    """Networks that lie in others let in nobody whom those do not; what lies in both is covered by each."""
    if covered(inner, outer) and inner:
        assert all(within(address, outer) for address in ADDRESSES if within(address, inner))
    both = intersection(inner, outer)
    if both:
        assert covered(both, inner)
        assert covered(both, outer)


def test_each_network_is_covered_by_one() -> None:
    """Of either family, each network must lie in a single other one; no networks cover every address."""
    outer = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.0/25", "192.0.2.128/25"]
    assert covered(["10.0.0.0/8", "10.1.0.0/16", "2001:db8:1::/48", "192.0.2.9/32"], outer)
    for wrong in (
        ["10.1.0.0/16", "11.0.0.0/8"],
        ["0.0.0.0/0"],
        ["2001:db8::/31"],
        ["::/0"],
        ["192.0.2.0/24"],
    ):
        assert not covered(wrong, outer), wrong
        assert covered(wrong, [])
    assert covered([], outer)


def test_networks_that_bind_nobody() -> None:
    """Every address of a family, or no network at all, is no bound."""
    assert bounds_somebody(["10.0.0.0/8", "::1/128"])
    for networks in ([], ["0.0.0.0/0"], ["10.0.0.0/8", "::/0"]):
        assert not bounds_somebody(networks)
