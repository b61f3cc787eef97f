"""Who asks: tokens and agents become an identity with the policies they have now."""

from __future__ import annotations

from datetime import datetime

from secrethub.auth.digests import token_digest
from secrethub.engines.engine import Identity
from secrethub.engines.runtime import Core
from secrethub.errors import PermissionDenied
from secrethub.operations.call import AgentCertificate, Credential, Token
from secrethub.storage.authority import AGENTS, APPROLES, TOKENS, Row

MAX_TOKEN = 256
"""Characters that a token has at most."""
IDENTITIES = tuple(("issued", f"{table.name}/") for table in (TOKENS, AGENTS))
"""What may come to be good without a new authority generation, as the stream of changes names it."""
_DEEPEST = 64


async def identify(core: Core, credential: Credential | None, now: datetime) -> Identity:
    """Return who ``credential`` stands for at ``now``.

    Raises:
        PermissionDenied: nobody, or nobody any more; ``reason`` is for the ledger.
        IntegrityFailure: the row that says so is not authentic.
    """
    match credential:
        case None:
            raise PermissionDenied("no token was given")
        case Token():
            return await _token(core, credential.secret.reveal(), now)
        case AgentCertificate():
            return await _agent(core, credential)


async def _token(core: Core, secret: str, now: datetime) -> Identity:
    if not 0 < len(secret) <= MAX_TOKEN:
        raise PermissionDenied("unknown token")
    digest = token_digest(core.keyring(), secret)
    row = await core.authority.get(TOKENS, digest)
    if row is None:
        raise PermissionDenied("unknown token")
    if row.expires_at is not None and row.expires_at <= now:
        raise PermissionDenied(f"token {digest[:16]} has expired")
    lineage = await _lineage(core, row, now)
    ends = [one.expires_at for one in lineage if one.expires_at is not None]
    return Identity(
        kind="token",
        key=row.key,
        name=row.body["display_name"],
        policies=tuple(row.body["policies"]),
        accessor=row.key[:16],
        expires_at=row.expires_at,
        good_until=min(ends, default=None),
        lineage=tuple(one.key for one in lineage),
        created_ttl=row.body["ttl"],
        metadata=row.body["meta"],
    )


async def _lineage(core: Core, row: Row, now: datetime) -> list[Row]:
    """Return the token and those it was made from: it ends with the first of them to end.

    Raises:
        PermissionDenied: an ancestor was revoked or has expired.
    """
    lineage = [row]
    while row.owner is not None:
        if len(lineage) >= _DEEPEST:
            raise PermissionDenied("too many generations of tokens")
        parent = await core.authority.get(TOKENS, row.owner)
        if parent is None or (parent.expires_at is not None and parent.expires_at <= now):
            raise PermissionDenied(f"the token that {row.key[:16]} was made from has ended")
        lineage.append(parent)
        row = parent
    return lineage


async def _agent(core: Core, certificate: AgentCertificate) -> Identity:
    row = await core.authority.get(AGENTS, certificate.agent_id)
    if row is None:
        raise PermissionDenied(f"agent {certificate.agent_id} is unknown")
    if row.body["status"] != "active":
        raise PermissionDenied(f"agent {certificate.agent_id} is {row.body['status']}")
    if certificate.serial not in row.body["serials"]:
        raise PermissionDenied(f"certificate {certificate.serial} is not one of the agent's")
    role = await core.authority.get(APPROLES, row.body["role"])
    if role is None or role.body["uuid"] != row.body["role_uuid"]:
        raise PermissionDenied(f"role {row.body['role']} of the agent no longer exists")
    return Identity(
        kind="agent",
        key=row.key,
        name=row.body["name"],
        policies=tuple(role.body["token_policies"]),
        metadata={"role_name": row.body["role"]},
    )
