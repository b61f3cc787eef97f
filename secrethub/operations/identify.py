"""Who asks: tokens and agents become an identity with the policies they have now."""

from __future__ import annotations

from datetime import datetime

from secrethub.auth.networks import within
from secrethub.engines.agents.records import agent_policies
from secrethub.engines.auth_methods import called
from secrethub.engines.identity import Identity
from secrethub.engines.runtime import Core
from secrethub.engines.token.known import find_token, holder_of
from secrethub.errors import PermissionDenied
from secrethub.operations.call import AgentCertificate, Credential, Token
from secrethub.storage.authority import AGENTS, APPROLES, TOKENS

IDENTITIES = tuple(("issued", f"{table.name}/") for table in (TOKENS, AGENTS))
"""What may come to be good without a new authority generation, as the stream of changes names it."""


async def identify(
    core: Core,
    credential: Credential | None,
    now: datetime,
    client_address: str | None = None,
    *,
    spent: bool = False,
) -> Identity:
    """Return who ``credential`` stands for at ``now``.

    Args:
        core: this process.
        credential: what was shown.
        now: the instant.
        client_address: where it comes from, or None when unknown.
        spent: a use of the token was counted for this request already.

    Raises:
        PermissionDenied: nobody, or nobody any more; ``reason`` is for the ledger.
        IntegrityFailure: the row that says so is not authentic.
    """
    match credential:
        case None:
            raise PermissionDenied("no token was given")
        case Token():
            row = await find_token(core, credential.secret.reveal())
            if row is None:
                raise PermissionDenied("unknown token")
            identity = await holder_of(core, row, now, spent=spent)
            check_address(identity, client_address)
            return identity
        case AgentCertificate():
            return await _agent(core, credential)


def check_address(identity: Identity, client_address: str | None) -> None:
    """Check that a token is used from where it may be.

    Raises:
        PermissionDenied: from elsewhere, or nobody knows from where.
    """
    if not within(client_address, identity.bound_cidrs):
        raise PermissionDenied(f"token {identity.key[:16]} is not bound to this address")


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
        gone = await called(core, "approle", row.body["role"])
        raise PermissionDenied(f"role {gone} of the agent no longer exists")
    own, bound = await agent_policies(core, row.key, role)
    return Identity(
        kind="agent",
        key=row.key,
        name=row.body["name"],
        policies=own + bound,
        bound=bound,
        metadata={"role_name": role.body["name"]},
        application=await core.bindings.application(certificate.application),
    )
