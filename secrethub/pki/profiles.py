"""What each kind of certificate is allowed to be.

A profile fixes what a caller must not choose: whether it is an authority, the depth below it, its
uses, the kinds of names in it, who may sign it and how long it may live.

::

    root            ECDSA P-384, or RSA-4096 by option
    ├── transport   signs agents and gateways, nothing else; no PKI mount reaches it
    │   ├── agent
    │   └── gateway
    └── pki         the default issuer of ``pki/issue``
        ├── server · client · service (both)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

NameKind = Literal["dns", "ip", "uri"]

_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
_YEAR = timedelta(days=365)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One kind of certificate.

    Attributes:
        name: the kind; for authorities also the last part of their URI.
        lifetime: how long it lives unless the caller asks for less or more.
        longest: the most a caller may ask for.
        signed_by: the kind of authority that signs it; the root signs itself.
        authority: whether it signs certificates.
        path_length: how many authorities may follow below it; None on leaves.
        uses: extended key usages; empty on authorities that are not restricted.
        names: kinds of subject alternative names it may carry.
    """

    name: str
    lifetime: timedelta
    longest: timedelta
    signed_by: str
    authority: bool = False
    path_length: int | None = None
    uses: tuple[ObjectIdentifier, ...] = ()
    names: frozenset[NameKind] = frozenset({"dns", "ip"})


ROOT = Profile(
    name="root",
    lifetime=10 * _YEAR,
    longest=20 * _YEAR,
    signed_by="root",
    authority=True,
    path_length=1,
    names=frozenset({"uri"}),
)
INTERMEDIATE = Profile(
    name="pki",
    lifetime=5 * _YEAR,
    longest=10 * _YEAR,
    signed_by="root",
    authority=True,
    path_length=0,
    names=frozenset({"uri"}),
)
TRANSPORT = Profile(
    name="transport",
    lifetime=5 * _YEAR,
    longest=10 * _YEAR,
    signed_by="root",
    authority=True,
    path_length=0,
    uses=(_SERVER, _CLIENT),
    names=frozenset({"uri"}),
)
AGENT = Profile(
    name="agent",
    lifetime=timedelta(days=90),
    longest=_YEAR,
    signed_by="transport",
    uses=(_CLIENT,),
    names=frozenset({"uri"}),
)
GATEWAY = Profile(
    name="gateway",
    lifetime=timedelta(days=30),
    longest=timedelta(days=90),
    signed_by="transport",
    uses=(_SERVER,),
    names=frozenset({"dns", "ip", "uri"}),
)
SERVER = Profile(name="server", lifetime=timedelta(days=30), longest=_YEAR, signed_by="pki", uses=(_SERVER,))
CLIENT = Profile(name="client", lifetime=timedelta(days=30), longest=_YEAR, signed_by="pki", uses=(_CLIENT,))
SERVICE = Profile(
    name="service", lifetime=timedelta(days=30), longest=_YEAR, signed_by="pki", uses=(_SERVER, _CLIENT)
)
