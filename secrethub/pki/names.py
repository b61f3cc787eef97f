"""Names in certificates: DNS names, IP addresses and SecretHub's own URIs, each checked alike.

A name reaches a certificate only through :func:`dns_name`, :func:`ip_address` or one of the URI
functions, and each returns one canonical spelling or raises. SecretHub's URIs are::

    secrethub://<cluster>/agent/<uuid>       an agent
    secrethub://<cluster>/gateway/<node>     a gateway of a node
    secrethub://<cluster>/ca/<kind>          one of the cluster's own authorities
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from secrethub.errors import InvalidRequest
from secrethub.ids import is_identity_value, is_uuid

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_COMMON_NAME = 64
"""ub-common-name of RFC 5280, appendix A."""
_LONGEST_DNS_NAME = 253
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URI = re.compile(r"secrethub://([A-Za-z0-9_.-]{1,64})/(agent|gateway|ca)/([A-Za-z0-9_.-]{1,64})")


class AgentName(NamedTuple):
    """Whom an agent's URI names."""

    cluster: str
    agent_id: str


class GatewayName(NamedTuple):
    """Whom a gateway's URI names."""

    cluster: str
    node: str


class AuthorityName(NamedTuple):
    """Which authority a CA's URI names."""

    cluster: str
    kind: str


def dns_name(text: str) -> str:
    """Return a DNS name in lower case.

    Accepted are letters, digits and hyphens in labels of 1 to 63 characters, 253 altogether
    (RFC 1123, 2.1); a name in another script is given in its ``xn--`` form. Refused are wildcards,
    a trailing dot, underscores, and a last label that is a number, for resolvers and browsers read
    such a name as an IPv4 address.

    Raises:
        InvalidRequest: anything else.
    """
    if not text.isascii():
        raise InvalidRequest(f"{_shown(text)} is not a DNS name: give the xn-- form")
    lowered = text.lower()
    if "*" in lowered:
        raise InvalidRequest(f"{_shown(text)}: wildcard names are not allowed")
    labels = lowered.split(".")
    if len(lowered) > _LONGEST_DNS_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidRequest(f"{_shown(text)} is not a DNS name")
    if _NUMBER.fullmatch(labels[-1]):
        raise InvalidRequest(f"{_shown(text)} reads as an IP address, not as a DNS name")
    return lowered


def ip_address(text: str) -> IPAddress:
    """Return one host's address.

    Refused are networks (``10.0.0.0/8``), zone identifiers (``fe80::1%eth0``), IPv4 addresses
    dressed as IPv6 ones, and addresses that name no single host (unspecified, multicast,
    broadcast).

    Raises:
        InvalidRequest: anything that is not one plain address.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError as exc:
        raise InvalidRequest(f"{_shown(text)} is not an IP address") from exc
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise InvalidRequest(f"{_shown(text)}: an address in a certificate has no zone")
        if address.ipv4_mapped is not None:
            raise InvalidRequest(f"{_shown(text)}: give the IPv4 address itself")
    if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        raise InvalidRequest(f"{_shown(text)} is not the address of one host")
    return address


def agent_uri(cluster: str, agent_id: str) -> str:
    """Return the URI that names an agent.

    Raises:
        InvalidRequest: ``agent_id`` is not a canonical UUID, or ``cluster`` cannot stand in a URI.
    """
    if not is_uuid(agent_id):
        raise InvalidRequest("an agent id is a UUID")
    return f"secrethub://{_piece(cluster, 'cluster id')}/agent/{agent_id}"


def gateway_uri(cluster: str, node: str) -> str:
    """Return the URI that names the gateway of a node.

    Raises:
        InvalidRequest: a part cannot stand in a URI.
    """
    return gateway_prefix(cluster) + _piece(node, "node name")


def gateway_prefix(cluster: str) -> str:
    """Return what the URI of every gateway of a cluster begins with.

    Raises:
        InvalidRequest: ``cluster`` cannot stand in a URI.
    """
    return f"secrethub://{_piece(cluster, 'cluster id')}/gateway/"


def authority_uri(cluster: str, kind: str) -> str:
    """Return the URI that marks one of a cluster's own authorities.

    Raises:
        InvalidRequest: a part cannot stand in a URI.
    """
    return f"secrethub://{_piece(cluster, 'cluster id')}/ca/{_piece(kind, 'kind of authority')}"


def parse_agent_uri(text: str) -> AgentName:
    """Read an agent's URI; exactly the spelling that :func:`agent_uri` writes.

    Raises:
        InvalidRequest: it names no agent.
    """
    cluster, name = _parse(text, "agent")
    if not is_uuid(name):
        raise InvalidRequest(f"{_shown(text)} does not name an agent")
    return AgentName(cluster, name)


def parse_gateway_uri(text: str) -> GatewayName:
    """Read a gateway's URI; exactly the spelling that :func:`gateway_uri` writes.

    Raises:
        InvalidRequest: it names no gateway.
    """
    return GatewayName(*_parse(text, "gateway"))


def parse_authority_uri(text: str) -> AuthorityName:
    """Read an authority's URI; exactly the spelling that :func:`authority_uri` writes.

    Raises:
        InvalidRequest: it names no authority.
    """
    return AuthorityName(*_parse(text, "ca"))


def _parse(text: str, kind: str) -> tuple[str, str]:
    match = _URI.fullmatch(text)
    if match is None or match[2] != kind or not all(map(is_identity_value, (match[1], match[3]))):
        raise InvalidRequest(f"{_shown(text)} does not name {'an' if kind == 'agent' else 'a'} {kind}")
    return match[1], match[3]


def _piece(text: str, what: str) -> str:
    if not is_identity_value(text) or len(text) > 64:
        raise InvalidRequest(f"{what} {_shown(text)} cannot stand in a certificate")
    return text


def _shown(text: str) -> str:
    """Quote a caller's text for a message: bounded, and without raw control characters."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
