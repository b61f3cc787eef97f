"""Whose address a request has, with proxies and without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.auth.networks import within
from serve.client_address import ClientAddress

PROXIES = ("10.0.0.0/24", "fd00::/64")
PROXY = ("10.0.0.1", 1234)


def seen(
    *values: str, trusted: tuple[str, ...] = PROXIES, peer: object = PROXY, door: str = "tls"
) -> str | None:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in values)]
    return ClientAddress(trusted).of(peer, door, headers)


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        (["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.2", "fd00::7"], "192.0.2.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([" 192.0.2.1:443 "], "192.0.2.1"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["2001:DB8::1"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        ([], None),
        ([""], None),
        (["192.0.2.1,"], None),
        (["192.0.2.1, unknown"], None),
        (["192.0.2.1, 10.0.0.2, _hidden"], None),
        (["192.0.2.1 10.0.0.2"], None),
        (["192.0.2.0/24"], None),
        (["192.0.2.01"], None),
        (["1" * 5000], None),
        (["192.0.2.1, " * 40 + "10.0.0.2"], None),
    ],
)
def test_behind_a_trusted_proxy(values: list[str], address: str | None) -> None:
    """The rightmost hop that no trusted proxy is counts; what cannot be read leaves it unknown."""
    assert seen(*values) == address


@pytest.mark.parametrize("value", ["192.0.2.1", "10.0.0.2", "127.0.0.1", "nonsense"])
def test_strangers_are_not_believed(value: str) -> None:
    """A peer that is no trusted proxy has its own address, whatever it writes."""
    assert seen(value, peer=("198.51.100.1", 1)) == "198.51.100.1"
    assert seen(value, trusted=()) == "10.0.0.1"
    assert seen(value, peer=None) is None


def test_serve_is_believed_only_with_loopback() -> None:
    """On Ray Serve's ingress the header counts only where loopback is trusted, and the peer never."""
    assert seen("192.0.2.1", door="serve") is None
    assert seen("192.0.2.1", door="serve", peer=("10.0.0.1", 1)) is None
    assert seen("192.0.2.1", door="serve", trusted=("127.0.0.1/32",)) == "192.0.2.1"
    assert seen(door="serve", trusted=("127.0.0.1/32",), peer=("192.0.2.1", 1)) is None


@given(
    forged=st.text(max_size=40, alphabet="0123456789.,:[]abcdef unkow"),
    client=st.ip_addresses(network="198.51.100.0/24"),
)
def test_what_a_client_writes_moves_nobody(forged: str, client: object) -> None:
    """However the client begins the header, the hop that the trusted proxy added is the one that counts."""
    address = seen(f"{forged},{client}")
    assert address in {str(client), None}
    assert address is None or not within(address, PROXIES)
