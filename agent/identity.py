"""Who the agent is: its key, its certificate and the authorities above it, in one file.

``identity.pem`` holds the key, the certificate, the transport intermediate and the pinned root; it
is replaced whole, so key and certificate always belong together. The agent's id and its cluster are
read from the certificate and from nowhere else.

Only the transport intermediate that signed the agent's own certificate is believed to sign
gateways: the root also signs the authority of the PKI mounts, which must never be able to make one.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from agent.state import StateDirectory
from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.pki import chain as chains
from secrethub.pki.keys import PrivateKey, check_strength, key_digest, private_pem
from secrethub.pki.names import gateway_prefix
from secrethub.pki.tls import load_identity
from secrethub.pki.validity import Window, renewal_due

IDENTITY_FILE = "identity.pem"
ENDPOINTS_FILE = "endpoints.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A key with its certificate. Made by :func:`certified` or :func:`load`.

    Attributes:
        key: the agent's private key.
        chain: the certificate, the transport intermediate and the root, in this order.
        agent_id: UUID given by Core.
        cluster: id of the cluster that gave it.
    """

    key: PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    agent_id: str
    cluster: str

    @property
    def validity(self) -> Window:
        """From when to when the certificate is valid."""
        return chains.validity(self.chain[0])

    @property
    def due(self) -> datetime:
        """When to renew the certificate."""
        return renewal_due(self.validity)

    @property
    def root_sha256(self) -> str:
        """Fingerprint of the pinned root."""
        return chains.fingerprint(self.chain[-1])

    @property
    def gateway_prefix(self) -> str:
        """What the URI of every gateway of this cluster begins with."""
        return gateway_prefix(self.cluster)

    def to_pem(self) -> bytes:
        """Return everything as PEM, the private key first."""
        return private_pem(self.key) + chains.to_pem(*self.chain).encode("ascii")

    def tls_context(self) -> ssl.SSLContext:
        """Return the context for connections to gateways: TLS 1.3, both sides authenticated.

        A gateway is known by its URI, not by the address it is reached at; the caller checks the
        URI with :func:`check_gateway` before anything is sent.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=chains.to_pem(self.chain[1]))
        load_identity(context, chains.to_pem(*self.chain[:-1]).encode("ascii"), private_pem(self.key))
        return context

    def check_gateway(self, der: bytes) -> str:
        """Return the node that a gateway's certificate names, the chain having been verified by TLS.

        Raises:
            PermissionDenied: it names no gateway of this cluster.
        """
        try:
            name = chains.gateway_name(chains.from_der(der))
        except InvalidRequest as exc:
            raise PermissionDenied(f"the server is no gateway: {exc}") from exc
        if name.cluster != self.cluster:
            raise PermissionDenied("the server is a gateway of another cluster")
        return name.node


def certified(
    key: PrivateKey, certificate: str, ca_chain: Sequence[str], root_sha256: str, now: datetime
) -> Identity:
    """Check what Core issued and put it together.

    Args:
        key: the key that the certificate must be for.
        certificate: the leaf, PEM.
        ca_chain: the authorities above it, PEM, in any order.
        root_sha256: fingerprint that the root must have.
        now: the instant at which all must be valid.

    Raises:
        InvalidRequest: the certificate is for another key or name, its chain does not lead to the
            root, or it was not signed by the cluster's transport intermediate.
    """
    leaf = chains.from_pem(certificate)[0]
    authorities = [found for pem in ca_chain for found in chains.from_pem(pem)]
    chain = chains.build_chain(leaf, authorities)
    if len(chain) != 3 or chains.fingerprint(chain[-1]) != root_sha256:
        raise InvalidRequest("the certificate does not lead to the pinned root by one intermediate")
    if key_digest(check_strength(leaf.public_key())) != key_digest(key.public_key()):
        raise InvalidRequest("the certificate is for another key")
    name = chains.agent_name(leaf)
    authority = chains.authority_name(chain[1])
    if authority.kind != "transport" or authority.cluster != name.cluster:
        raise InvalidRequest("the certificate was not signed by the cluster's transport intermediate")
    try:
        chains.check_client(leaf, chain[1:-1], chain[-1], now)
    except PermissionDenied as exc:
        raise InvalidRequest(exc.reason) from exc
    return Identity(key=key, chain=chain, agent_id=name.agent_id, cluster=name.cluster)


def load(state: StateDirectory, name: str = IDENTITY_FILE) -> Identity | None:
    """Read a stored identity, expired or not; None when there is none under this name.

    Raises:
        InvalidRequest: the file is damaged.
    """
    stored = state.read(name)
    if stored is None:
        return None
    try:
        key = load_key(stored)
        chain = chains.from_pem(stored.decode("ascii", "replace"))
        named = chains.agent_name(chain[0])
    except InvalidRequest as exc:
        raise InvalidRequest(f"{state.path / name} is damaged: {exc}") from exc
    return Identity(key=key, chain=chain, agent_id=named.agent_id, cluster=named.cluster)


def save(state: StateDirectory, identity: Identity) -> None:
    """Store the identity durably."""
    state.write(IDENTITY_FILE, identity.to_pem())


def load_key(pem: bytes) -> PrivateKey:
    """Read a private key from PEM.

    Raises:
        InvalidRequest: it is no key of an accepted kind.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise InvalidRequest("not a private key") from exc
    check_strength(key.public_key())
    return key  # type: ignore[return-value]  # check_strength knows exactly these kinds


def load_endpoints(state: StateDirectory) -> tuple[str, ...]:
    """Return the gateways' URLs that Core gave at enrolment."""
    stored = state.read(ENDPOINTS_FILE)
    return () if stored is None else msgspec.json.decode(stored, type=tuple[str, ...])


def save_endpoints(state: StateDirectory, urls: Sequence[str]) -> None:
    """Store the gateways' URLs.

    Raises:
        InvalidRequest: there is none, or one is not ``wss://``.
    """
    if not urls or not all(url.startswith("wss://") for url in urls):
        raise InvalidRequest("Core named no gateway that can be used")
    state.write(ENDPOINTS_FILE, msgspec.json.encode(list(urls)))
