"""How a host becomes an agent: a nonce, a signing request that carries it, a certificate.

Rules:

- Only a token that an AppRole login gave enrols, and the agent's role is that login's. It is what the
  token's row says; metadata proves nothing: whoever may create tokens chooses it.
- The nonce is bound to the token, good once and for five minutes. With the request's own signature
  it proves that the key is held now.
- Of the request only the key and the nonce are read. Core decides the names.
- A name that exists is enrolled again only with the key last certified for it, under the same role,
  and never while revoked; or with another key after an operator's approval. The earlier
  certificates are worth nothing afterwards.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from cryptography import x509

from secrethub.crypto.digests import sha256
from secrethub.engines.agents.records import Agent, agent_id_of, instant, load, store
from secrethub.engines.auth_methods import called
from secrethub.engines.engine import Answer, Context, Hidden
from secrethub.engines.identity import Identity
from secrethub.engines.origin import origin_of
from secrethub.engines.pki.authorities import lifetime_below, load_issuer
from secrethub.errors import Conflict, InvalidRequest, PermissionDenied, Stale, TooManyRequests
from secrethub.ids import is_identity_value
from secrethub.pki.chain import fingerprint, serial_text, to_pem, validity
from secrethub.pki.csr import SigningRequest, parse_request
from secrethub.pki.issuing import Issuer, Names, issue
from secrethub.pki.keys import describe
from secrethub.pki.names import agent_uri, gateway_prefix
from secrethub.pki.profiles import AGENT, TRANSPORT
from secrethub.pki.revocation import Standing
from secrethub.storage import certificates, enrollments
from secrethub.storage.authority import APPROLES, TOKENS, Change, Row
from secrethub.wire.durations import format_rfc3339

AGENTS_MOUNT = "agents/"
NONCE_LIFE = timedelta(minutes=5)
_LONGEST_NAME = 128
_MOST_LABELS = 32


class BeginRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say: the token says it."""


class EnrollRequest(Hidden, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host says when it enrols."""

    csr: Annotated[str, msgspec.Meta(max_length=16_384)]
    name: str
    version: Annotated[str, msgspec.Meta(max_length=64)] = ""
    labels: dict[str, Annotated[str, msgspec.Meta(max_length=256)]] = {}


async def begin(context: Context, _body: BeginRequest) -> Answer:
    """Give out a nonce for the caller's token."""
    identity, _ = await _enrolling(context)
    nonce = secrets.token_urlsafe(24)
    expires = context.now + NONCE_LIFE
    async with context.core.authority.issue(context.fence) as change:
        kept = await enrollments.add(change.connection, _digest(nonce), identity.key, context.now, expires)
        if not kept:
            raise TooManyRequests("this token has too many enrolments under way", NONCE_LIFE.total_seconds())
    return Answer(data={"nonce": nonce, "expires": format_rfc3339(expires)})


async def enroll(context: Context, body: EnrollRequest) -> Answer:
    """Issue a certificate to the host that holds the key, and write it into the inventory."""
    identity, role = await _enrolling(context)
    _check(body)
    request = parse_request(body.csr)
    if request.challenge is None:
        raise PermissionDenied("the csr carries no nonce")
    core = context.core
    agent_id = agent_id_of(core, body.name)
    issuer = await load_issuer(core, TRANSPORT.name)
    made = certify(issuer, agent_id, request, context.now)
    known = await load(core, agent_id) is not None
    # A new name only adds a row. Enrolling a name again ends its earlier certificates.
    opened = core.authority.change(context.fence) if known else core.authority.issue(context.fence)
    async with opened as change:
        if not await enrollments.use(
            change.connection, _digest(request.challenge.decode("latin-1")), identity.key, context.now
        ):
            raise PermissionDenied("the nonce is not this token's, was used, or has expired")
        await _admit(context, change, agent_id, role, body, request, made, known=known)
        await certificates.record(change.connection, inventory_row(agent_id, made, context.now))
    serial = serial_text(made.serial_number)
    told = await called(core, "approle", role.key)
    detail = {"agent_id": agent_id, "name": body.name, "role": told, "serial_number": serial}
    return Answer(data=_enrolled(context, agent_id, issuer, made), detail=detail)


async def _enrolling(context: Context) -> tuple[Identity, Row]:
    """Return the caller and the AppRole role that its token was given for.

    Raises:
        PermissionDenied: the token does not come from an AppRole login, or the role is gone.
    """
    identity = context.identity
    if identity is None or identity.kind != "token":
        raise PermissionDenied("only a token enrols")
    core = context.core
    row = await core.authority.get(TOKENS, identity.key)
    origin = None if row is None else origin_of(row)
    if origin is None or origin.table != APPROLES.name:
        raise PermissionDenied("only a token of an AppRole login enrols")
    role = await core.authority.get(APPROLES, origin.key)
    if role is None or role.body["uuid"] != origin.uuid:
        raise PermissionDenied("the role of the AppRole login no longer exists")
    return identity, role


def _check(body: EnrollRequest) -> None:
    if not is_identity_value(body.name) or len(body.name) > _LONGEST_NAME:
        raise InvalidRequest(f"name has 1 to {_LONGEST_NAME} characters of A-Z, a-z, 0-9, '_', '.' and '-'")
    if not body.version.isprintable():
        raise InvalidRequest("version has control characters")
    if len(body.labels) > _MOST_LABELS:
        raise InvalidRequest(f"at most {_MOST_LABELS} labels are kept")
    for key, value in body.labels.items():
        if not is_identity_value(key) or len(key) > 64 or not value.isprintable():
            raise InvalidRequest(
                "a label has a name of A-Z, a-z, 0-9, '_', '.' and '-' and a printable value"
            )


async def _admit(
    context: Context,
    change: Change,
    agent_id: str,
    role: Row,
    body: EnrollRequest,
    request: SigningRequest,
    made: x509.Certificate,
    *,
    known: bool,
) -> None:
    found = await load(context.core, agent_id, change)
    if found is not None:
        if not known:
            raise Stale("the name was enrolled meanwhile")
        row, old = found
        held = old.status == "active" and old.key_digest == request.key_digest and old.role == role.key
        if not held and not old.approved(role.key, context.now):
            raise Conflict(
                f"an agent named {body.name} exists: enrol with its key and role, or have it approved"
            )
    serial, end = serial_text(made.serial_number), validity(made).not_after
    standing = Standing(status="active", serials={}).enrolled(serial, end)
    agent = Agent(
        name=body.name,
        role=role.key,
        role_uuid=role.body["uuid"],
        status=standing.status,
        serials={},
        certificate_serial=serial,
        certificate_not_after=instant(end),
        key_digest=request.key_digest,
        key_type=describe(request.public_key),
        version=body.version,
        labels=body.labels,
        enrolled_at=instant(context.now),
    )
    await store(change, agent_id, agent.with_standing(standing), over=None if found is None else row)


def certify(issuer: Issuer, agent_id: str, request: SigningRequest, now: datetime) -> x509.Certificate:
    """Return a certificate for the key of ``request`` in the name of ``agent_id``."""
    names = Names(common_name=agent_id, uris=(agent_uri(issuer.name.cluster, agent_id),))
    return issue(issuer, AGENT, request.public_key, names, now, lifetime_below(issuer, AGENT, now))


def inventory_row(agent_id: str, made: x509.Certificate, now: datetime) -> certificates.CertificateRow:
    """Return the inventory's row of an agent's certificate."""
    return certificates.CertificateRow(
        serial=serial_text(made.serial_number),
        mount=AGENTS_MOUNT,
        kind=AGENT.name,
        subject=agent_id,
        issued_at=now,
        not_after=validity(made).not_after,
        pem=to_pem(made),
    )


def _enrolled(context: Context, agent_id: str, issuer: Issuer, made: x509.Certificate) -> dict[str, object]:
    return {
        "agent_id": agent_id,
        "certificate": to_pem(made),
        "ca_chain": [to_pem(above) for above in issuer.chain],
        "not_after": format_rfc3339(validity(made).not_after),
        "agent_urls": list(context.core.settings.agent_urls),
        "gateway_uri": gateway_prefix(issuer.name.cluster),
        "root_sha256": fingerprint(issuer.chain[-1]),
    }


def _digest(nonce: str) -> bytes:
    return sha256("enrollment-nonce", nonce)
