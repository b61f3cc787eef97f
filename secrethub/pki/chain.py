"""Reading certificates, putting chains together and checking them (RFC 5280, 6)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.pki.names import (
    AgentName,
    AuthorityName,
    GatewayName,
    parse_agent_uri,
    parse_authority_uri,
    parse_gateway_uri,
)
from secrethub.pki.validity import Window

_DEEPEST = 4
"""Authorities above a leaf."""
_SERIAL = re.compile(r"[0-9a-f]{2}([:-]?[0-9a-f]{2}){0,19}")


def to_pem(*certificates: x509.Certificate) -> str:
    """Return certificates as one PEM text."""
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode("ascii") for c in certificates)


def from_pem(pem: str) -> tuple[x509.Certificate, ...]:
    """Read one or more certificates from PEM.

    Raises:
        InvalidRequest: there is none, or one cannot be read.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(pem.encode()))
    except (ValueError, x509.InvalidVersion) as exc:
        raise InvalidRequest("not a PEM certificate") from exc


def from_der(der: bytes) -> x509.Certificate:
    """Read one certificate from DER.

    Raises:
        InvalidRequest: it cannot be read.
    """
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as exc:
        raise InvalidRequest("not a DER certificate") from exc


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the DER form, 64 hexadecimal digits."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def validity(certificate: x509.Certificate) -> Window:
    """Return from when to when a certificate is valid, in UTC."""
    return Window(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def serial_text(number: int) -> str:
    """Return a serial number as Vault writes it: bytes in hexadecimal, joined by colons."""
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big").hex(":")


def parse_serial(text: str) -> str:
    """Return the one spelling of a serial number given with colons, hyphens or neither.

    Raises:
        InvalidRequest: it is no serial number.
    """
    lowered = text.lower()
    if not text.isascii() or _SERIAL.fullmatch(lowered) is None:
        raise InvalidRequest("not a serial number: bytes in hexadecimal, joined by colons")
    return serial_text(int(re.sub("[:-]", "", lowered), 16))


def authority_name(certificate: x509.Certificate) -> AuthorityName:
    """Return the cluster and kind that one of SecretHub's own authorities says of itself.

    A client that pins such a root knows from it that a server below must be a gateway of that
    cluster.

    Raises:
        InvalidRequest: it is not one of SecretHub's authorities.
    """
    return parse_authority_uri(_only_uri(certificate))


def agent_name(certificate: x509.Certificate) -> AgentName:
    """Return whom an agent's certificate names. The certificate must have been verified before.

    Raises:
        InvalidRequest: it is not an agent's: it has other names beside the one URI, or another URI.
    """
    names = _names(certificate)
    if len(names) != 1:
        raise InvalidRequest("an agent's certificate carries its URI and no other name")
    return parse_agent_uri(_only_uri(certificate))


def gateway_name(certificate: x509.Certificate) -> GatewayName:
    """Return whom a gateway's certificate names. The certificate must have been verified before.

    Raises:
        InvalidRequest: it is not a gateway's.
    """
    return parse_gateway_uri(_only_uri(certificate))


def build_chain(
    leaf: x509.Certificate, authorities: Iterable[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Order a leaf and the authorities above it, the root last.

    Raises:
        InvalidRequest: an issuer is missing.
    """
    candidates = list(authorities)
    chain = [leaf]
    while chain[-1].issuer != chain[-1].subject:
        above = next((c for c in candidates if c not in chain and _signed(chain[-1], c)), None)
        if above is None or len(chain) > _DEEPEST:
            raise InvalidRequest("the chain does not lead to a root")
        chain.append(above)
    return tuple(chain)


def check_client(
    leaf: x509.Certificate, between: Sequence[x509.Certificate], anchor: x509.Certificate, now: datetime
) -> None:
    """Check a client's certificate against an anchor. Revocation is asked elsewhere.

    Raises:
        PermissionDenied: it does not hold, with the reason for the ledger.
    """
    policy = PolicyBuilder().store(Store([anchor])).time(now).max_chain_depth(_DEEPEST)
    try:
        policy.build_client_verifier().verify(leaf, list(between))
    except VerificationError as exc:
        raise PermissionDenied(f"the certificate does not hold: {exc}") from exc


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        ValueError,
    ) as exc:
        raise InvalidRequest("the certificate carries no alternative names") from exc
    return list(extension.value)


def _only_uri(certificate: x509.Certificate) -> str:
    uris = [n.value for n in _names(certificate) if isinstance(n, x509.UniformResourceIdentifier)]
    if len(uris) != 1:
        raise InvalidRequest("the certificate does not carry exactly one URI")
    return uris[0]
