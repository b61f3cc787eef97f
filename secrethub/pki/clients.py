"""Client certificates of other people's authorities: checked against anchors, read for their names. Pure.

The rules for extensions are looser than those of the public web, for private authorities rarely keep to them:
what must hold is that every issuer is an authority that may sign certificates, and that the certificate
may be used by a client if it says what it may be used for. Names in it are compared as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from secrethub.errors import PermissionDenied

_DEEPEST = 6
_FOR_CLIENTS = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


def check_client_of(
    leaf: x509.Certificate,
    between: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    now: datetime,
) -> None:
    """Check that a client's certificate leads to one of the anchors, or is one of them.

    Args:
        leaf: of whom TLS has proved that it holds the key.
        between: other certificates that may be on the way.
        anchors: trusted authorities, or certificates.
        now: the instant.

    Raises:
        PermissionDenied: it does not.
    """
    builder = PolicyBuilder().store(Store(list(anchors))).time(now).max_chain_depth(_DEEPEST)
    verifier = builder.extension_policies(
        ca_policy=_authorities(), ee_policy=_clients()
    ).build_client_verifier()
    try:
        verifier.verify(leaf, list(between))
    except VerificationError as exc:
        raise PermissionDenied(f"the certificate does not hold: {exc}") from exc


def _authorities() -> ExtensionPolicy:
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
    )


def _clients() -> ExtensionPolicy:
    return ExtensionPolicy.permit_all().may_be_present(
        x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _for_clients
    )


def _is_authority(_policy: object, _certificate: object, extension: x509.BasicConstraints) -> None:
    if not extension.ca:
        raise ValueError("an issuer is no authority")


def _may_sign(_policy: object, _certificate: object, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("an issuer may not sign certificates")


def _for_clients(_policy: object, _certificate: object, extension: x509.ExtendedKeyUsage | None) -> None:
    if extension is not None and _FOR_CLIENTS.isdisjoint(extension):
        raise ValueError("it is not for clients")


def common_name(certificate: x509.Certificate) -> str:
    """Return the subject's common name, empty if there is none or several."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def organizational_units(certificate: x509.Certificate) -> list[str]:
    """Return the subject's organizational units."""
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return [str(one.value) for one in found]


def alternative_names(certificate: x509.Certificate, kind: type[x509.GeneralName]) -> list[str]:
    """Return the alternative names of a kind, as text; none where the extension cannot be read."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return []
    found: list[Any] = [name.value for name in extension.value if isinstance(name, kind)]
    return [str(value) for value in found]


def key_identifiers(certificate: x509.Certificate) -> tuple[str, str]:
    """Return subject and authority key identifiers, bytes in hexadecimal joined by colons, or empty."""
    own = above = ""
    try:
        subject = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        own = subject.value.digest.hex(":")
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        above = (issuer.value.key_identifier or b"").hex(":")
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        pass
    return own, above


def text_extension(certificate: x509.Certificate, oid: str) -> str | None:
    """Return the text of an extension that holds one ASN.1 string, or None."""
    for extension in certificate.extensions:
        if extension.oid.dotted_string == oid and isinstance(extension.value, x509.UnrecognizedExtension):
            return _asn1_text(extension.value.value)
    return None


_STRINGS = {0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1A: "ascii"}


def _asn1_text(der: bytes) -> str | None:
    """Return the text of a DER string: tag, length in one to three bytes, content."""
    if len(der) < 2 or der[0] not in _STRINGS:
        return None
    length, start = der[1], 2
    if length in {0x81, 0x82}:
        start = 2 + length - 0x80
        length = int.from_bytes(der[2:start], "big")
    elif length >= 0x80:
        return None
    if len(der) != start + length:
        return None
    try:
        return der[start:].decode(_STRINGS[der[0]])
    except UnicodeDecodeError:
        return None
