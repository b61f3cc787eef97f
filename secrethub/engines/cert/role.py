"""A certificate role: which certificates are let in, and with what. Rules without IO."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from cryptography import x509

from secrethub.engines.auth_methods import row_name
from secrethub.engines.text import plain_text
from secrethub.engines.token.settings import (
    TokenSettings,
    WriteTokenSettings,
    check_tokens,
    either,
    shown_tokens,
    token_changes,
)
from secrethub.errors import InvalidRequest
from secrethub.ids import is_identity_value
from secrethub.pki.chain import from_pem, to_pem
from secrethub.storage.authority import Row

_LONGEST_NAME = 128
_LONGEST_PEM = 65_536
_MOST_CERTIFICATES = 16
_MOST_PATTERNS = 64
_OID = re.compile(r"[0-2](\.[0-9]{1,20}){1,20}")
PATTERNS = (
    "allowed_names",
    "allowed_common_names",
    "allowed_dns_sans",
    "allowed_email_sans",
    "allowed_uri_sans",
    "allowed_organizational_units",
    "required_extensions",
)
_REFUSED = ("ocsp_enabled", "ocsp_servers_override", "ocsp_ca_certificates", "ocsp_query_all_servers")


class CertRole(TokenSettings, frozen=True, kw_only=True):
    """A role.

    Attributes:
        name: as in paths.
        uuid: of this role; one made anew under its name is another.
        certificate: PEM of trusted authorities, or of certificates themselves.
        pki: path of a PKI mount whose authority is trusted, whatever it is at the login; or empty.
        display_name: what tokens are called; the role's name where it is empty.
        allowed_names: patterns, one of which the common name, a DNS name or an e-mail address matches.
        allowed_common_names: the same for the common name, and so on; ``*`` stands for any text.
        required_extensions: ``oid:pattern``, all of which hold.
    """

    name: str
    uuid: str
    certificate: str = ""
    pki: str = ""
    display_name: str = ""
    allowed_names: tuple[str, ...] = ()
    allowed_common_names: tuple[str, ...] = ()
    allowed_dns_sans: tuple[str, ...] = ()
    allowed_email_sans: tuple[str, ...] = ()
    allowed_uri_sans: tuple[str, ...] = ()
    allowed_organizational_units: tuple[str, ...] = ()
    required_extensions: tuple[str, ...] = ()


class CertRoleAnswer(TokenSettings, frozen=True, kw_only=True):
    """A role as it is read."""

    certificate: str
    pki: str
    display_name: str
    policies: list[str]
    allowed_names: list[str]
    allowed_common_names: list[str]
    allowed_dns_sans: list[str]
    allowed_email_sans: list[str]
    allowed_uri_sans: list[str]
    allowed_organizational_units: list[str]
    required_extensions: list[str]


class WriteCertRole(WriteTokenSettings, frozen=True):
    """A role as it is written. What is absent keeps what it was.

    Names without ``token_`` are older ones. The fields from ``ocsp_enabled`` on are known only to be refused.
    """

    name: str | None = None
    certificate: str | None = None
    pki: str | None = None
    display_name: str | None = None
    allowed_names: list[str] | None = None
    allowed_common_names: list[str] | None = None
    allowed_dns_sans: list[str] | None = None
    allowed_email_sans: list[str] | None = None
    allowed_uri_sans: list[str] | None = None
    allowed_organizational_units: list[str] | None = None
    required_extensions: list[str] | None = None
    ttl: str | int | None = None
    max_ttl: str | int | None = None
    bound_cidrs: list[str] | None = None
    ocsp_enabled: bool | None = None
    ocsp_servers_override: list[str] | None = None
    ocsp_ca_certificates: str | None = None
    ocsp_query_all_servers: bool | None = None


def role_key(mount: str, name: str) -> str:
    """Return the key of a role's row, of the mount with this UUID.

    Raises:
        InvalidRequest: not a name.
    """
    if not is_identity_value(name) or len(name) > _LONGEST_NAME:
        raise InvalidRequest(
            f"a role's name has 1 to {_LONGEST_NAME} characters of A-Z, a-z, 0-9, '_', '.' and '-'"
        )
    return row_name(mount, name)


def role_of(row: Row) -> CertRole:
    """Return the role of a row."""
    return msgspec.convert(dict(row.body), CertRole)


def changed(role: CertRole, body: WriteCertRole) -> CertRole:
    """Return the role with what was given.

    Raises:
        InvalidRequest: a value that cannot be, or that would narrow the role and is not enforced.
    """
    for name in _REFUSED:
        if getattr(body, name):
            raise InvalidRequest(f"{name} is not supported: revocation is looked up for pki/ only")
    if body.name not in {None, "", role.name}:
        raise InvalidRequest("the role's name is that of the path")
    older = {"token_ttl": "ttl", "token_max_ttl": "max_ttl", "token_bound_cidrs": "bound_cidrs"}
    given = token_changes(
        msgspec.structs.replace(body, **{name: either(body, name, old) for name, old in older.items()})
    )
    if body.certificate is not None:
        given["certificate"] = _bundle(body.certificate)
    if body.pki is not None:
        given["pki"] = f"{body.pki.strip('/')}/" if body.pki else ""
    if body.display_name is not None:
        given["display_name"] = plain_text(body.display_name, "display_name", _LONGEST_NAME)
    for name in PATTERNS:
        if (patterns := getattr(body, name)) is not None:
            given[name] = _patterns(patterns, name)
    result = msgspec.structs.replace(role, **given)
    check_tokens(result)
    if not result.certificate and not result.pki:
        raise InvalidRequest("certificate is missing: which authorities are trusted?")
    if result.pki and not any(getattr(result, name) for name in PATTERNS):
        raise InvalidRequest(
            "a role that trusts a PKI mount says who is let in (allowed_common_names, allowed_dns_sans, …)"
        )
    return result


def anchors_of(role: CertRole) -> tuple[x509.Certificate, ...]:
    """Return the certificates that a role trusts by itself."""
    return from_pem(role.certificate) if role.certificate else ()


def shown(role: CertRole) -> dict[str, Any]:
    """Return a role as it is read."""
    told = msgspec.to_builtins(role)
    named = ("certificate", "pki", *PATTERNS)
    return {
        **shown_tokens(role),
        **{name: told[name] for name in named},
        "policies": told["token_policies"],
        "display_name": role.display_name or role.name,
    }


def _bundle(pem: str) -> str:
    if not pem:
        return ""
    if len(pem) > _LONGEST_PEM:
        raise InvalidRequest("certificate is too long")
    found = from_pem(pem)
    if len(found) > _MOST_CERTIFICATES:
        raise InvalidRequest(f"certificate holds at most {_MOST_CERTIFICATES} certificates")
    return to_pem(*found)


def _patterns(given: list[str], name: str) -> tuple[str, ...]:
    if len(given) > _MOST_PATTERNS:
        raise InvalidRequest(f"{name} has at most {_MOST_PATTERNS} entries")
    for text in given:
        plain_text(text, name, 512)
        oid, colon, _ = text.partition(":")
        if name == "required_extensions" and (not colon or _OID.fullmatch(oid) is None):
            raise InvalidRequest("required_extensions are written oid:value")
    return tuple(given)
