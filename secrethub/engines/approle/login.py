"""Login with RoleID and SecretID.

A login that fails says the same, and does the same work, whatever was wrong.
"""

from __future__ import annotations

import ipaddress

import msgspec

from secrethub.auth.digests import accessor_digest, role_id_digest, secret_id_digest
from secrethub.engines.engine import Answer, Context
from secrethub.engines.token import issue_token
from secrethub.engines.token.lifetimes import login_lifetime
from secrethub.errors import LoginFailed
from secrethub.policy.builtin import DEFAULT
from secrethub.storage.authority import APPROLES, ROLE_IDS, SECRET_IDS, Row

_FAILED = "invalid role or secret ID"


class Login(msgspec.Struct, frozen=True):
    """RoleID and SecretID."""

    role_id: str = ""
    secret_id: str = ""


def _within(address: str | None, cidrs: list[str]) -> bool:
    if not cidrs:
        return True
    try:
        peer = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return any((mapped or peer) in ipaddress.ip_network(cidr) for cidr in cidrs)


async def _lookup(context: Context, body: Login) -> tuple[Row | None, Row | None]:
    """Return role and SecretID; both digests are always computed and looked up."""
    core = context.core
    keyring = core.keyring()
    found = await core.authority.fetch(ROLE_IDS, role_id_digest(keyring, context.mount, body.role_id))
    name = found.body["role"] if found is not None else ""
    role = await core.authority.fetch(APPROLES, name)
    secret = await core.authority.fetch(
        SECRET_IDS, secret_id_digest(keyring, context.mount, name, body.secret_id)
    )
    return role, secret


def _objection(context: Context, role: Row, secret: Row | None) -> str:
    """Return why a SecretID of ``role`` is no good, or nothing."""
    name = role.key
    if secret is None:
        return f"the role {name} has no such SecretID"
    which = f"the SecretID {secret.body['accessor']} of the role {name}"
    if secret.body["role_uuid"] != role.body["uuid"]:
        return f"{which} was made for a former role of that name"
    if secret.expires_at is not None and secret.expires_at <= context.now:
        return f"{which} has expired"
    if secret.body["limited"] and secret.body["uses_left"] < 1:
        return f"{which} is used up"
    if not _within(context.client_address, secret.body["cidrs"]):
        return f"{which} is not bound to this address"
    if not _within(context.client_address, role.body["secret_id_bound_cidrs"]):
        return f"the role {name} is not bound to this address"
    return ""


async def login(context: Context, body: Login) -> Answer:
    """Trade a RoleID and a SecretID for a token; the use is counted in the same transaction."""
    core = context.core
    if not (0 < len(body.role_id) <= 256 and 0 < len(body.secret_id) <= 256):
        raise LoginFailed(_FAILED, "no RoleID or no SecretID was given")
    role, known = await _lookup(context, body)
    async with core.authority.issue(context.fence) as change:
        if role is None:
            raise LoginFailed(_FAILED, "unknown RoleID")
        secret = None if known is None else await change.get(SECRET_IDS, known.key)
        objection = _objection(context, role, secret)
        if objection or secret is None:
            raise LoginFailed(_FAILED, objection)
        if secret.body["limited"]:
            left = secret.body["uses_left"] - 1
            if left:
                await change.put(
                    SECRET_IDS,
                    secret.key,
                    {**secret.body, "uses_left": left},
                    owner=secret.owner,
                    expires_at=secret.expires_at,
                )
            else:
                await change.delete(SECRET_IDS, secret.key)
        no_default = role.body["token_no_default_policy"]
        policies = sorted({*role.body["token_policies"], *(() if no_default else (DEFAULT,))})
        ttl, limit = login_lifetime(
            role.body["token_ttl"],
            role.body["token_max_ttl"],
            mount_ttl=context.lease_ttl,
            mount_max=context.max_lease_ttl,
        )
        auth = await issue_token(
            change,
            core.keyring(),
            context.now,
            display_name=f"approle-{role.body['name']}",
            policies=policies,
            ttl=ttl,
            max_ttl=limit,
            renewable=True,
            path=context.path,
            meta={
                **secret.body["metadata"],
                "role_name": role.body["name"],
                "role": role.key,
                "role_uuid": role.body["uuid"],
            },
        )
    return Answer(
        auth=auth,
        detail={
            "role": role.key,
            "secret_id_accessor": secret.body["accessor"],
            "token_accessor": accessor_digest(core.keyring(), auth.accessor)[:16],
            "written": change.written,
        },
    )
