"""Whom the roles trust: for each login, and all together for the listener that asks for certificates.

SecretHub's own transport certificates never log in. Their authority, and the root above it, which signs
that authority too, are no authorities that a role may trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from secrethub.engines.cert.role import CertRole, anchors_of, role_of
from secrethub.engines.pki.authorities import load_chain
from secrethub.engines.pki.engine import AUTHORITIES
from secrethub.engines.runtime import Core
from secrethub.errors import InvalidRequest, NotFound, PermissionDenied
from secrethub.pki.chain import serial_text, to_pem
from secrethub.pki.clients import alternative_names
from secrethub.pki.keys import key_digest
from secrethub.pki.profiles import TRANSPORT
from secrethub.storage import certificates
from secrethub.storage.authority import CERT_ROLES

_SHA256 = hashes.SHA256()
_OUR_URIS = "secrethub://"


async def check_trusted(core: Core, role: CertRole) -> None:
    """Check that a role trusts nobody whom no role may trust.

    Raises:
        InvalidRequest: it does, or names a PKI mount that has no authority.
    """
    if role.pki and role.pki not in AUTHORITIES:
        raise InvalidRequest(f"no authority is configured at {role.pki}")
    own = {_key(one) for one in await load_chain(core, TRANSPORT.name)}
    for anchor in anchors_of(role):
        if _key(anchor) in own:
            raise InvalidRequest(
                "the cluster's root signs agents and gateways too: to trust what pki/ issues, give pki=pki/"
            )


async def anchors(core: Core, role: CertRole) -> tuple[x509.Certificate, ...]:
    """Return the authorities that a role trusts now."""
    found = anchors_of(role)
    if role.pki:
        found += (await load_chain(core, AUTHORITIES[role.pki]))[:1]
    return found


async def check_standing(core: Core, chain: Sequence[x509.Certificate]) -> None:
    """Check that a certificate is none of the cluster's own, and not one that pki/ has revoked.

    Args:
        core: this process.
        chain: the certificate, then those above it.

    Raises:
        PermissionDenied: it is.
    """
    transport = (await load_chain(core, TRANSPORT.name))[0]
    if any(_is_ours(one) for one in chain[:1]) or any(_signed(one, transport) for one in chain):
        raise PermissionDenied("a certificate of an agent or a gateway does not log in")
    for mount, name in AUTHORITIES.items():
        if not _signed(chain[0], (await load_chain(core, name))[0]):
            continue
        async with core.database.read() as connection:
            row = await certificates.find(connection, mount, serial_text(chain[0].serial_number))
        if row is None or row.revoked_at is not None:
            raise PermissionDenied(f"{mount} has revoked the certificate, or does not know it")


async def client_authorities(core: Core) -> str:
    """Return PEM of everybody whom some role trusts, empty when there is no role.

    Rows that are not authentic are left out: nobody gets in by them.

    Raises:
        Sealed, Unavailable: they cannot be read.
    """
    rows, _ = await core.authority.everything(CERT_ROLES)
    found: dict[str, x509.Certificate] = {}
    for row in rows:
        try:
            trusted: Iterable[x509.Certificate] = await anchors(core, role_of(row))
        except NotFound:
            continue
        found.update({one.fingerprint(_SHA256).hex(): one for one in trusted})
    return to_pem(*found.values())


def _key(certificate: x509.Certificate) -> str:
    try:
        return key_digest(certificate.public_key())  # type: ignore[arg-type]
    except ValueError as exc:
        raise InvalidRequest("a certificate has a key of an unknown kind") from exc


def _is_ours(certificate: x509.Certificate) -> bool:
    """Tell whether it names itself an agent, a gateway or the transport authority."""
    uris = alternative_names(certificate, x509.UniformResourceIdentifier)
    return any(uri.startswith(_OUR_URIS) for uri in uris)


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
