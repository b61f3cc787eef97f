"""Login with a client certificate.

TLS has proved that the client holds the key (``serve/client_certificates.py``). Here each role decides by
itself: the chain to its own authorities is checked anew, whatever the listener trusted for others.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from cryptography import x509

from secrethub.auth.digests import accessor_digest
from secrethub.auth.networks import within
from secrethub.engines.auth_methods import belongs
from secrethub.engines.cert.matching import objection_to_names
from secrethub.engines.cert.role import CertRole, role_key, role_of
from secrethub.engines.cert.trust import anchors, check_standing
from secrethub.engines.engine import Answer, Context
from secrethub.engines.mounts import Mount
from secrethub.engines.origin import Origin
from secrethub.engines.token.logins import issue_for_login
from secrethub.errors import InvalidRequest, LoginFailed, NotFound, PermissionDenied
from secrethub.pki.chain import from_der, serial_text
from secrethub.pki.clients import check_client_of, common_name, key_identifiers
from secrethub.pki.keys import key_digest
from secrethub.storage.authority import CERT_ROLES

_NONE = "client certificate must be supplied"
_ENDED = "the client certificate would not be let in any more"
_FAILED = "invalid certificate or no client certificate supplied"


class CertLogin(msgspec.Struct, frozen=True):
    """``name``: of the role; any role that the certificate fits when it is not given."""

    name: str = ""


async def login(context: Context, body: CertLogin) -> Answer:
    """Trade a client certificate for a token."""
    if not context.peer:
        raise LoginFailed(_NONE, f"no verified client certificate came by the door {context.door}")
    try:
        chain = tuple(from_der(der) for der in context.peer)
        await check_standing(context.core, chain)
        role = await _admitting(context, chain, body.name)
        key = key_digest(chain[0].public_key())  # type: ignore[arg-type]
    except (InvalidRequest, PermissionDenied, ValueError) as exc:
        raise LoginFailed(_FAILED, str(exc)) from exc
    core = context.core
    async with core.authority.issue(context.fence) as change:
        auth, warnings = await issue_for_login(
            context,
            change,
            role,
            Origin(
                table=CERT_ROLES.name, key=role_key(context.mount_id, role.name), uuid=role.uuid, proof=key
            ),
            display_name=f"cert-{role.display_name or role.name}",
            meta=_metadata(role, chain[0]),
        )
    return Answer(
        auth=auth,
        warnings=warnings,
        detail={
            "role": role.name,
            "serial_number": serial_text(chain[0].serial_number),
            "token_accessor": accessor_digest(core.keyring(), auth.accessor)[:16] if auth.accessor else "",
        },
    )


async def check_renewal(context: Context, origin: Origin, mount: Mount) -> None:
    """Check that the client would be let in again: with the same key, by the role as it is now.

    Args:
        context: of the renewal.
        origin: of the token.
        mount: where it was given out.

    Raises:
        InvalidRequest: it would not be, and the mount asks.
    """
    if mount.settings.get("disable_binding"):
        return
    try:
        chain = tuple(from_der(der) for der in context.peer)
        if not chain or key_digest(chain[0].public_key()) != origin.proof:  # type: ignore[arg-type]
            raise InvalidRequest("the client certificate is not the one that the token was got with")
        await check_standing(context.core, chain)
        row = await context.core.authority.get(CERT_ROLES, origin.key)
        reason = "" if row is None else await _objection(context, role_of(row), chain)
    except (PermissionDenied, ValueError) as exc:
        raise InvalidRequest(f"{_ENDED}: {exc}") from exc
    if reason:
        raise InvalidRequest(f"{_ENDED}: {reason}")


async def _admitting(context: Context, chain: Sequence[x509.Certificate], name: str) -> CertRole:
    """Return the first role, by name, that lets a certificate in.

    Raises:
        PermissionDenied: there is none; ``reason`` says why each does not.
    """
    reasons: list[str] = []
    for role in await _roles(context, name):
        reason = await _objection(context, role, chain)
        if not reason:
            return role
        reasons.append(f"{role.name}: {reason}")
    raise PermissionDenied("; ".join(reasons) or "no role of this name, or none at all")


async def _roles(context: Context, name: str) -> list[CertRole]:
    authority = context.core.authority
    if name:
        row = await authority.fetch(CERT_ROLES, role_key(context.mount_id, name))
        return [] if row is None else [role_of(row)]
    rows, broken = await authority.everything(CERT_ROLES)
    for trouble in broken.values():
        raise trouble
    here = (row for row in rows if belongs(context.mount_id, row.key))
    return sorted(map(role_of, here), key=lambda role: role.name)


async def _objection(context: Context, role: CertRole, chain: Sequence[x509.Certificate]) -> str:
    try:
        trusted = await anchors(context.core, role)
        check_client_of(chain[0], chain[1:], trusted, context.now)
    except (PermissionDenied, NotFound) as exc:
        return str(exc)
    if not within(context.client_address, role.token_bound_cidrs):
        return "not bound to this address"
    return objection_to_names(role, chain[0])


def _metadata(role: CertRole, leaf: x509.Certificate) -> dict[str, str]:
    own, above = key_identifiers(leaf)
    return {
        "cert_name": role.name,
        "common_name": common_name(leaf)[:256],
        "serial_number": str(leaf.serial_number),
        "subject_key_id": own[:256],
        "authority_key_id": above[:256],
    }
