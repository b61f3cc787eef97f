"""Networks that credentials are bound to."""

from __future__ import annotations

import pytest

from secrethub.auth.networks import parse_networks, within
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
