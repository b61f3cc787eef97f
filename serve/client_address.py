"""Whose address a request has.

It is the socket's peer. A peer that the operator named as a trusted proxy speaks for others: then it is the
rightmost hop of ``X-Forwarded-For`` that is no trusted proxy, for that is the last one that somebody
trusted has seen. Whatever stands left of it was written by whoever asks. A trusted proxy that does not say
for whom it speaks, or says it in a way that cannot be read, leaves the address unknown, so that conditions
on it do not hold: its own would let everybody in who comes by it.

On Ray Serve's ingress the peer is not to be seen; it is this machine's, or something before it. So the
header is read there only where loopback itself is trusted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from secrethub.auth.networks import within
from serve.doors import peer_address

_HEADER = b"x-forwarded-for"
_INGRESS = "127.0.0.1"
_MOST_HOPS = 32
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


class ClientAddress:
    """Tells the addresses of clients.

    Args:
        trusted: networks of proxies, canonical; none believes no header.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(trusted)

    def of(self, client: object, door: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the client's address, or None when it is unknown.

        Args:
            client: the socket's peer, as ASGI gives it.
            door: which listener accepted the request.
            headers: of the request, in order, with names in lower case.
        """
        peer = peer_address(client, door)
        if not self._trusted:
            return peer
        before = _INGRESS if door == "serve" else peer
        if before is None or not within(before, self._trusted):
            return peer
        hops = _hops(headers)
        if hops is None:
            return None
        for hop in reversed(hops):
            address = _address(hop)
            if address is None or not within(address, self._trusted):
                return address
        # Proxies all the way: the first of them asked by itself.
        return _address(hops[0])


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> list[str] | None:
    """Return what the proxies wrote, in order, or None when there is nothing or too much."""
    values = [value.decode("latin-1") for name, value in headers if name == _HEADER]
    hops = ",".join(values).split(",", _MOST_HOPS) if values else []
    return None if not hops or len(hops) > _MOST_HOPS else hops


def _address(hop: str) -> str | None:
    text = hop.strip()
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address(match[1] or match[2] if match is not None else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address).partition("%")[0]
