"""Where this process may connect to when somebody says so through the API.

Whoever configures a target chooses an address that SecretHub, from its own place in the network, connects to.
Loopback, link-local addresses (with the metadata services of clouds) and Core's own database are refused
unless the operator's server settings allow their networks; what is not a host's address is refused always.

A name is looked up once, every address that it has must be allowed, and the connection is made to one of
those: a name server cannot answer differently in between.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOKUP_SECONDS = 5.0
_POSTGRES = 5432
_PORTS = {"https": 443, "http": 80}


class Refused(InvalidRequest):
    """A target that must not be connected to."""


class WebTarget(msgspec.Struct, frozen=True, kw_only=True):
    """An ``https`` or ``http`` URL.

    Attributes:
        scheme: ``https`` or ``http``.
        host: name or address.
        port: of the service.
        path: what is asked for there.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Return host and port as the ``Host`` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(text: str) -> WebTarget:
    """Return what a URL says.

    Raises:
        InvalidRequest: it is no such URL, or has a place where secrets are put: user, query or fragment.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise InvalidRequest("this is no URL") from exc
    if parts.scheme not in _PORTS or not parts.hostname or not text.isascii() or not text.isprintable():
        raise InvalidRequest("a URL is https://host[:port]/path")
    if " " in text or parts.username is not None or parts.query or parts.fragment or "?" in text:
        raise InvalidRequest("a URL has no user, query or fragment: URLs are no place for secrets")
    return WebTarget(
        scheme=parts.scheme,
        host=parts.hostname,
        port=_PORTS[parts.scheme] if port is None else port,
        path=parts.path or "/",
    )


async def allowed_addresses(
    settings: NodeSettings, host: str, port: int, *, secure: bool = True
) -> list[Address]:
    """Return the addresses of a target that may be connected to, in the resolver's order.

    Args:
        settings: this node's.
        host: name or address.
        port: of the service.
        secure: whether the connection is encrypted and the peer proves who it is.

    Raises:
        Refused: an address is not allowed, or not without encryption.
        OSError: the name is not known now.
    """
    networks = [ipaddress.ip_network(text) for text in settings.outbound_networks]
    addresses = await _resolved(host, port)
    own = await _database(settings)
    for address in addresses:
        trusted = any(address in network for network in networks)
        if (address, port) in own:
            raise Refused(f"{host}:{port} is the database of SecretHub itself")
        if address.is_multicast or address.is_unspecified or address.is_reserved:
            raise Refused(f"{host} is no host's address")
        if (address.is_loopback or address.is_link_local) and not trusted:
            raise Refused(f"{host} is loopback or link-local: the server's settings do not allow it")
        if not secure and not trusted:
            raise Refused(f"without TLS only networks of the server's settings are connected to, not {host}")
    return addresses


async def _resolved(host: str, port: int) -> list[Address]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LOOKUP_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise Refused("this is no name of a host") from exc
    return [_plain(str(sockaddr[0])) for *_, sockaddr in found]


def _plain(text: str) -> Address:
    """Return an address as what it leads to: IPv4 in IPv6's clothes is IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        # RFC 6052: the well-known prefix of NAT64.
        if address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address


async def _database(settings: NodeSettings) -> Sequence[tuple[Address, int]]:
    parts = urlsplit(settings.database_url)
    host, port = parts.hostname, parts.port or _POSTGRES
    if not host:
        return ()  # a Unix socket
    try:
        return [(address, port) for address in await _resolved(host, port)]
    except OSError:
        return ()
