"""Networks that a credential is bound to. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from secrethub.errors import InvalidRequest

MOST = 64
"""Networks that one credential is bound to at most."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(given: Sequence[str]) -> list[str]:
    """Return networks in canonical form; a bare address is a network of one.

    Raises:
        InvalidRequest: one of them is none, or they are too many.
    """
    if len(given) > MOST:
        raise InvalidRequest(f"at most {MOST} CIDRs can be bound")
    try:
        return [str(_canonical(text)) for text in given]
    except ValueError as exc:
        raise InvalidRequest("bound CIDRs must be networks such as 10.0.0.0/8") from exc


def parse_address(given: str, name: str) -> str:
    """Return an address in canonical form.

    Args:
        given: as a person wrote it.
        name: of the parameter, for the error.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        return str(ipaddress.ip_address(given))
    except ValueError as exc:
        raise InvalidRequest(f"{name} is an address such as 192.0.2.1") from exc


def within(address: str | None, networks: Sequence[str]) -> bool:
    """Tell whether an address is in one of the networks, or there are none.

    Args:
        address: the client's; an unknown one is in no network.
        networks: as :func:`parse_networks` returned them.
    """
    if not networks:
        return True
    try:
        peer = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return any((mapped or peer) in _network(text) for text in networks)


def intersection(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...] | None:
    """Return the networks that lie in both, where an empty list stands for every address.

    Returns:
        Canonical networks, empty for every address; None when no address is in both.
    """
    if not one or not other:
        return tuple(one or other)
    both = {
        str(smaller)
        for left in map(_network, one)
        for right in map(_network, other)
        if (smaller := _smaller(left, right)) is not None
    }
    return tuple(sorted(both)) or None


def covered(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Tell whether each network lies in one of others, where no others stand for every address."""
    return not outer or all(
        any(_smaller(left, right) is left for right in map(_network, outer)) for left in map(_network, inner)
    )


def bounds_somebody(networks: Sequence[str]) -> bool:
    """Tell whether there are networks and none of them is every address of its family."""
    return bool(networks) and all(_network(text).prefixlen > 0 for text in networks)


def _smaller(left: _Network, right: _Network) -> _Network | None:
    if isinstance(left, ipaddress.IPv4Network) and isinstance(right, ipaddress.IPv4Network):
        return left if left.subnet_of(right) else right if right.subnet_of(left) else None
    if isinstance(left, ipaddress.IPv6Network) and isinstance(right, ipaddress.IPv6Network):
        return left if left.subnet_of(right) else right if right.subnet_of(left) else None
    return None


@lru_cache(maxsize=4096)
def _network(text: str) -> _Network:
    return ipaddress.ip_network(text)


def _canonical(text: str) -> _Network:
    """Return a network; one of IPv4 addresses written as IPv6 becomes what it means."""
    network = ipaddress.ip_network(text.strip(), strict=False)
    if network.version == 6 and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
