"""Login with RoleID and SecretID.

A login that fails says the same, and does the same work, whatever was wrong. All roles are in memory, so what
is unknown is found out as fast as what is known; then one SecretID is looked for in the database, and where
there is none, one that is nobody's is checked instead. Nothing is written then but the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from secrethub.auth.digests import accessor_digest, role_id_digest, secret_id_digest
from secrethub.auth.networks import intersection, within
from secrethub.engines.approle.role import LONGEST_ID, Role, role_key, role_of
from secrethub.engines.approle.secret_id import SecretId, is_good, secret_id_of
from secrethub.engines.engine import Answer, Auth, Context, Hidden
from secrethub.engines.origin import Origin
from secrethub.engines.token.issuing import fresh_token
from secrethub.engines.token.logins import issue_for_login
from secrethub.errors import LoginFailed
from secrethub.storage.authority import APPROLES, SECRET_IDS, Change, Row
from secrethub.storage.authority_rows import check_nobodys

_FAILED = "invalid role or secret ID"
_NOBODY = Role(name="nobody", uuid="00000000-0000-4000-8000-000000000000", role_id="nobody")
_NOTHING = SecretId(
    role_uuid=_NOBODY.uuid,
    accessor=_NOBODY.uuid,
    uses_left=1,
    ttl=60,
    cidrs=(),
    token_cidrs=(),
    metadata={},
    created_at=1_700_000_000,
    updated_at=1_700_000_000,
)
_NO_ROLE = Row(table=APPROLES.name, key=_NOBODY.uuid, revision=1, body=msgspec.to_builtins(_NOBODY))
_NO_SECRET_ID = Row(
    table=SECRET_IDS.name,
    key=_NOBODY.uuid,
    revision=1,
    body=msgspec.to_builtins(_NOTHING),
    owner=_NOBODY.uuid,
    expires_at=datetime(2023, 11, 14, tzinfo=UTC),
)


class Login(Hidden, msgspec.Struct, frozen=True):
    """RoleID and SecretID; what a file or a shell has put around them is no part of them, as in Vault."""

    role_id: str = ""
    secret_id: str = ""

    def bare(self) -> Login:
        """Return them without spaces around them."""
        return Login(role_id=self.role_id.strip(), secret_id=self.secret_id.strip())


def claimed_role(_params: Mapping[str, str], body: bytes, _peer: tuple[bytes, ...]) -> str | None:
    """Return the RoleID that a login names, or None when it cannot be read."""
    try:
        return msgspec.json.decode(body, type=Login).bare().role_id
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


async def login(context: Context, body: Login) -> Answer:
    """Trade a RoleID and a SecretID for a token; the use is counted in the same transaction."""
    body = body.bare()
    if not 0 < len(body.role_id) <= LONGEST_ID or len(body.secret_id) > LONGEST_ID:
        raise LoginFailed(_FAILED, "no RoleID was given")
    role, row = await _look_up(context, body)
    reason = _objection(context, role, row)
    if reason or role is None:
        raise LoginFailed(_FAILED, reason)
    secret = secret_id_of(row) if row is not None and role.bind_secret_id else _NOTHING
    core = context.core
    counted = row if row is not None and secret.uses_left is not None and role.bind_secret_id else None
    fresh = fresh_token(core.keyring())

    async def let_in(change: Change) -> tuple[Auth, tuple[str, ...]]:
        if counted is not None:
            await _count(change, counted, context.now)
        return await issue_for_login(
            context,
            change,
            role,
            Origin(table=APPROLES.name, key=role_key(context.mount_id, role.name), uuid=role.uuid),
            display_name=f"approle-{role.name}",
            meta={**secret.metadata, "role_name": role.name},
            bound_cidrs=intersection(role.token_bound_cidrs, secret.token_cidrs),
            fresh=fresh,
        )

    places = [*fresh.places, *([(SECRET_IDS, counted.key)] if counted is not None else [])]
    auth, warnings = await core.authority.together.issue(context.fence, places, let_in)
    return Answer(
        auth=auth,
        warnings=warnings,
        detail={
            "role": role.name,
            "secret_id_accessor": secret.accessor if role.bind_secret_id else "",
            "token_accessor": accessor_digest(core.keyring(), auth.accessor)[:16] if auth.accessor else "",
        },
    )


async def _look_up(context: Context, body: Login) -> tuple[Role | None, Row | None]:
    """Return role and SecretID; whatever is unknown takes as long as what is known."""
    core, keyring = context.core, context.core.keyring()
    found = await core.role_ids.find(role_id_digest(keyring, context.mount_id, body.role_id))
    known = await core.approles.find(found.body["role"] if found is not None else "")
    role = role_of(_NO_ROLE if known is None else known)
    key = secret_id_digest(keyring, role.uuid, body.secret_id)
    secret = await core.authority.fetch(SECRET_IDS, key)
    if secret is None:
        check_nobodys(keyring.derived("authority"), _NO_SECRET_ID)
        is_good(_NO_SECRET_ID, context.now)
        secret_id_of(_NO_SECRET_ID)
    return None if known is None else role, secret


def _objection(context: Context, role: Role | None, row: Row | None) -> str:
    """Return why somebody is not let in, for the ledger, or nothing."""
    if role is None:
        return "unknown RoleID"
    address = context.client_address
    if not (within(address, role.secret_id_bound_cidrs) and within(address, role.token_bound_cidrs)):
        return f"the role {role.name} is not bound to this address"
    if not role.bind_secret_id:
        return ""
    if row is None:
        return f"the role {role.name} has no such SecretID"
    secret = secret_id_of(row)
    which = f"the SecretID {secret.accessor} of the role {role.name}"
    if not is_good(row, context.now):
        return f"{which} has expired"
    if not (within(address, secret.cidrs) and within(address, secret.token_cidrs)):
        return f"{which} is not bound to this address"
    if intersection(role.token_bound_cidrs, secret.token_cidrs) is None:
        return f"{which} is bound to no address of the role"
    return ""


async def _count(change: Change, row: Row, now: datetime) -> None:
    """Count a use under the lock of the row; the last one deletes it.

    Raises:
        LoginFailed: there is none left.
    """
    current = await change.get(SECRET_IDS, row.key)
    if current is None:
        raise LoginFailed(_FAILED, f"the SecretID {row.body['accessor']} is used up")
    secret = secret_id_of(current)
    left = (secret.uses_left or 0) - 1
    if left < 1:
        await change.delete(SECRET_IDS, current.key)
        return
    spent = msgspec.structs.replace(secret, uses_left=left, updated_at=int(now.timestamp()))
    await change.put(
        SECRET_IDS,
        current.key,
        msgspec.to_builtins(spent),
        owner=current.owner,
        expires_at=current.expires_at,
    )
