"""Who may come in by which door: the checks that depend on the listener, before anything else.

4000 and 8000 speak plain HTTP to programs on this machine. A browser there can be sent by any web page
to a name that resolves to loopback, so ``Host`` and ``Origin`` must be names that we expect.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from secrethub.errors import InvalidRequest

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LONGEST = 300
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::[0-9]{1,5})?")


class HostCheck:
    """Accepts loopback names and those that the operator listed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = _LOOPBACK | {name.lower().strip("[]") for name in allowed}

    def check(self, host: str | None, origin: str | None) -> None:
        """Check the two headers.

        Raises:
            InvalidRequest: one of them is somebody else's name, or ``Host`` is missing.
        """
        if host is None or not self._is_ours(host):
            raise InvalidRequest("this Host is not served here")
        if origin is not None:
            scheme, _, named = origin.partition("://")
            if scheme.lower() not in {"http", "https"} or not self._is_ours(named):
                raise InvalidRequest("this Origin may not speak to us")

    def _is_ours(self, host: str) -> bool:
        return len(host) <= _LONGEST and _name(host) in self._allowed


@lru_cache(maxsize=256)
def _name(host: str) -> str | None:
    """Return the name or address of ``host[:port]``, or None when it is not of that form."""
    match = _HOST.fullmatch(host.strip().lower())
    return None if match is None else match[1] or match[2]


def peer_address(client: object, door: str) -> str | None:
    """Return the socket's peer, or None where it is not the client (Ray Serve's ingress)."""
    if door == "serve" or not isinstance(client, (tuple, list)) or not client:
        return None
    return _address(str(client[0]))


@lru_cache(maxsize=4096)
def _address(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # What a socket for both families shows of an IPv4 peer.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
