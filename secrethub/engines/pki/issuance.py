"""What may be asked of ``pki/issue``, and how it is answered: rules without IO.

A field that would narrow a certificate, or give it out in another form, is honoured or refused, never
dropped: who asked for it would rely on something that is not there.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from secrethub.engines.pki.roles import Role
from secrethub.errors import InvalidRequest
from secrethub.pki import keys
from secrethub.pki.chain import serial_text, to_pem, validity
from secrethub.pki.issuing import MOST_NAMES, Issuer, Names
from secrethub.pki.names import dns_name, ip_address
from secrethub.wire.durations import parse_duration, parse_rfc3339


class IssuedAnswer(msgspec.Struct, frozen=True):
    """A certificate and its key in the form asked for; ``expiration`` in seconds since the epoch."""

    certificate: str
    issuing_ca: str
    ca_chain: list[str]
    private_key: str
    private_key_type: str
    serial_number: str
    expiration: int


class IssueRequest(msgspec.Struct, frozen=True):
    """What a certificate is to be, and in which form it is given out.

    The fields from ``uri_sans`` on are known only to be refused.

    Attributes:
        ttl: how long it lives.
        not_after: when it ends (RFC 3339), instead of ``ttl``.
        format: ``pem``, ``der`` (base64), or ``pem_bundle``, where ``certificate`` holds the key, the
            certificate and the authorities.
        private_key_format: ``der`` for the key's usual form, in PEM too, or ``pkcs8``.
    """

    common_name: str
    alt_names: list[str] = []
    ip_sans: list[str] = []
    ttl: int | str | None = None
    not_after: str = ""
    role: str | None = None
    format: str = "pem"
    private_key_format: str = "der"
    uri_sans: list[str] = []
    other_sans: list[str] = []
    exclude_cn_from_sans: bool = False
    remove_roots_from_chain: bool = False
    user_ids: list[str] = []
    serial_number: str = ""
    issuer_ref: str = ""


def check_supported(body: IssueRequest) -> None:
    """Refuse what is not done here.

    Raises:
        InvalidRequest: something of it is asked for.
    """
    if body.uri_sans or body.other_sans:
        raise InvalidRequest("the role does not allow URI or other alternative names")
    for name in ("exclude_cn_from_sans", "remove_roots_from_chain", "user_ids", "serial_number"):
        if getattr(body, name):
            raise InvalidRequest(f"{name} is not supported")
    if body.format not in {"", "pem", "der", "pem_bundle"}:
        raise InvalidRequest("format is pem, der or pem_bundle")
    if body.private_key_format not in {"", "der", "pkcs8"}:
        raise InvalidRequest("private_key_format is der or pkcs8")
    if body.issuer_ref not in {"", "default"}:
        raise InvalidRequest("this mount has one issuer: issuer_ref must be default")


def lifetime(role: Role, body: IssueRequest, now: datetime) -> tuple[timedelta, tuple[str, ...]]:
    """Return how long the certificate lives from ``now``, and what the caller is to be told of it.

    A ``ttl`` beyond the role's is cut with a warning, as in Vault. An instant is meant as it is, so one
    that cannot be had is refused.

    Raises:
        InvalidRequest: both are given, one is not well-formed, or the instant is not within the role's
            limits.
    """
    if body.not_after:
        if body.ttl is not None and parse_duration(body.ttl):
            raise InvalidRequest("either ttl or not_after can be given, not both")
        end = parse_rfc3339(body.not_after)
        if end is None or end <= now:
            raise InvalidRequest("not_after lies in the past")
        if end.replace(microsecond=0) - now > timedelta(seconds=role.max_ttl):
            raise InvalidRequest(f"not_after is later than permitted: {role.max_ttl}s from now at most")
        return end - now, ()
    seconds = (0 if body.ttl is None else parse_duration(body.ttl)) or role.ttl
    if seconds > role.max_ttl:
        warning = f"TTL {seconds}s is longer than permitted: {role.max_ttl}s is used"
        return timedelta(seconds=role.max_ttl), (warning,)
    return timedelta(seconds=seconds), ()


def names(body: IssueRequest) -> Names:
    """Return the names that the certificate is to carry.

    Raises:
        InvalidRequest: too many, or one that is not allowed.
    """
    if len(body.alt_names) + len(body.ip_sans) >= MOST_NAMES:
        raise InvalidRequest(f"a certificate carries at most {MOST_NAMES} names")
    if not 1 <= len(body.common_name) <= 64:
        raise InvalidRequest("common_name has 1 to 64 characters; longer names go into alt_names")
    common_name = dns_name(body.common_name)
    dns = (common_name, *(dns_name(name) for name in body.alt_names))
    addresses = tuple(ip_address(address) for address in body.ip_sans)
    return Names(
        common_name=common_name,
        dns=tuple(dict.fromkeys(dns)),
        addresses=tuple(dict.fromkeys(addresses)),
    )


def answered(
    body: IssueRequest, made: x509.Certificate, issuer: Issuer, key: keys.PrivateKey
) -> dict[str, object]:
    """Return the certificate, those above it and the key in the form that was asked for."""
    der = body.format == "der"
    shown = _base64 if der else _pem
    certificate = shown(made)
    chain = [shown(above) for above in issuer.chain]
    encoded = keys.private_bytes(
        key, Encoding.DER if der else Encoding.PEM, pkcs8=body.private_key_format == "pkcs8"
    )
    private = base64.b64encode(encoded).decode("ascii") if der else encoded.decode("ascii").strip()
    if body.format == "pem_bundle":
        certificate = "\n".join([private, certificate, *chain])
    return {
        "certificate": certificate,
        "issuing_ca": chain[0],
        "ca_chain": chain,
        "private_key": private,
        "private_key_type": "rsa" if keys.describe(key.public_key()).startswith("rsa") else "ec",
        "serial_number": serial_text(made.serial_number),
        "expiration": int(validity(made).not_after.timestamp()),
    }


def _pem(certificate: x509.Certificate) -> str:
    return to_pem(certificate).strip()


def _base64(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")
