"""Which token a text or an accessor stands for, whether it is still good, and who holds it.

Batch tokens have no row; what they say is given the form of one, so that nobody else needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from secrethub.auth import batch
from secrethub.auth.digests import accessor_digest, token_digest
from secrethub.clock import micros
from secrethub.engines.bindings import Kind, Subject
from secrethub.engines.engine import Context
from secrethub.engines.identity import Identity
from secrethub.engines.mounts import AUTH, TOKEN_MOUNT
from secrethub.engines.origin import origin_of
from secrethub.engines.runtime import Core
from secrethub.errors import DecryptionFailed, InvalidRequest, PermissionDenied
from secrethub.storage.authority import ACCESSORS, APPROLES, CERT_ROLES, TOKENS, USERS, Row

MAX_TOKEN = batch.MAX_LENGTH
"""Characters that a token has at most."""

_BY_ORIGIN: Mapping[str, Kind] = {
    APPROLES.name: "approle",
    CERT_ROLES.name: "cert",
    USERS.name: "user",
}
"""What can be bound to those who logged in by a row of a table."""
_MAX_ACCESSOR = 256
DEEPEST = 64
"""Generations of tokens: a token, those that it was made from, and no more."""
_UNKNOWN_ACCESSOR = "invalid accessor"


def digest_of(core: Core, secret: str) -> str:
    """Return the digest that a token is known by; texts that are too long for one have one, too."""
    return token_digest(core.keyring(), secret[: MAX_TOKEN + 1])


async def find_token(core: Core, secret: str) -> Row | None:
    """Return a token's row, or None; whether it is still good is another question.

    Raises:
        IntegrityFailure: the row is not authentic.
    """
    if not 0 < len(secret) <= MAX_TOKEN:
        return None
    digest = digest_of(core, secret)
    if not secret.startswith(batch.PREFIX):
        return await core.authority.get(TOKENS, digest)
    try:
        told = batch.open_batch(core.keyring(), core.keys.cluster_id, secret)
    except DecryptionFailed:
        return None
    return _as_row(digest, told)


async def find_by_accessor(context: Context, accessor: str) -> Row:
    """Return the row of the service token that has this accessor.

    Raises:
        InvalidRequest: there is none.
        IntegrityFailure: a row is not authentic.
    """
    core = context.core
    if not 0 < len(accessor) <= _MAX_ACCESSOR:
        raise InvalidRequest(_UNKNOWN_ACCESSOR)
    key = accessor_digest(core.keyring(), accessor)
    context.depends("issued", f"{ACCESSORS.name}/{key}")
    found = await core.authority.get(ACCESSORS, key)
    if found is None:
        raise InvalidRequest(_UNKNOWN_ACCESSOR)
    digest = found.body["token"]
    context.depends("issued", f"{TOKENS.name}/{digest}")
    row = await core.authority.get(TOKENS, digest)
    if row is None:
        raise InvalidRequest(_UNKNOWN_ACCESSOR)
    return row


async def good_token(context: Context, secret: str) -> Row:
    """Return the row of a token that somebody asks about.

    Raises:
        PermissionDenied: unknown, or not good any more.
        IntegrityFailure: a row is not authentic.
    """
    core = context.core
    row = await find_token(core, secret)
    # A renewal by way of another process takes nothing away, so only this tells that it happened.
    context.depends("issued", f"{TOKENS.name}/{digest_of(core, secret)}")
    if row is None:
        raise PermissionDenied("unknown token")
    await lineage_of(core, row, context.now)
    return row


async def lineage_of(core: Core, row: Row, now: datetime, *, spent: bool = False) -> list[Row]:
    """Return the token and those it was made from: it ends with the first of them to end.

    Args:
        core: this process.
        row: the token's.
        now: the instant.
        spent: the token's last use is the present request.

    Raises:
        PermissionDenied: it, or one of them, was revoked, has expired, or is used up.
    """
    name = row.key[:16]
    if row.expires_at is not None and row.expires_at <= now:
        raise PermissionDenied(f"token {name} has expired")
    if row.body["uses_left"] == 0 and not spent:
        raise PermissionDenied(f"token {name} is used up")
    await _check_method(core, row)
    lineage = [row]
    while row.owner is not None:
        if len(lineage) >= DEEPEST:
            raise PermissionDenied("too many generations of tokens")
        parent = await core.authority.get(TOKENS, row.owner)
        if parent is None or (parent.expires_at is not None and parent.expires_at <= now):
            raise PermissionDenied(f"the token that {row.key[:16]} was made from has ended")
        await _check_method(core, parent)
        lineage.append(parent)
        row = parent
    return lineage


async def _check_method(core: Core, row: Row) -> None:
    """Check that the auth method is there that gave out a token.

    So that its end is the end of all its tokens at once; rows are removed in their own time, and batch
    tokens have none.

    Raises:
        PermissionDenied: it was disabled.
        IntegrityFailure: it may have been.
    """
    path = row.body["path"]
    if not path.startswith(AUTH) or path.startswith(TOKEN_MOUNT):
        return
    method = await core.mounts.auth_method(path)
    if method is None or (row.body["type"] == "batch" and row.body["created_micros"] < method.enabled_at):
        raise PermissionDenied(f"the auth method of token {row.key[:16]} was disabled")


async def holder_of(core: Core, row: Row, now: datetime, *, spent: bool = False) -> Identity:
    """Return who holds a token.

    Args:
        core: this process.
        row: the token's.
        now: the instant.
        spent: the token's last use is the present request.

    Raises:
        PermissionDenied: it is not good any more.
        IntegrityFailure: a row is not authentic.
    """
    lineage = await lineage_of(core, row, now, spent=spent)
    body = row.body
    ends = [one.expires_at for one in lineage if one.expires_at is not None]
    own, bound = tuple(body["policies"]), await bound_to(core, row)
    return Identity(
        kind="token",
        key=row.key,
        name=body["display_name"],
        policies=own + bound,
        bound=bound,
        accessor=row.key[:16],
        expires_at=row.expires_at,
        good_until=min(ends, default=None),
        entity=_entity(lineage),
        lineage=tuple(one.key for one in lineage),
        life=life_of(row),
        metadata=body["meta"],
        batch=body["type"] == "batch",
        uses_left=body["uses_left"],
        bound_cidrs=tuple(body["bound_cidrs"]),
    )


def life_of(row: Row) -> int:
    """Return seconds from a token's creation to its present end; 0 for one without an end."""
    return 0 if row.expires_at is None else int(row.expires_at.timestamp()) - int(row.body["created_at"])


def _entity(lineage: list[Row]) -> str:
    """Return who holds a token: whom the nearest login in its lineage was of, or the token itself."""
    for row in lineage:
        origin = row.body["origin"]
        if origin is not None:
            return f"{origin['table']}/{origin['uuid']}"
    return lineage[0].key


async def bound_to(core: Core, row: Row) -> tuple[str, ...]:
    """Return the policies that a token has by bindings alone: its own, and those of its login.

    Raises:
        IntegrityFailure: a row that says so is not authentic.
    """
    subjects = [Subject("token", row.key)]
    origin = origin_of(row)
    if origin is not None and origin.table in _BY_ORIGIN:
        subjects.append(Subject(_BY_ORIGIN[origin.table], origin.key, origin.uuid))
    return (await core.bindings.policies(*subjects)).beyond(row.body["policies"])


def _as_row(digest: str, told: batch.BatchToken) -> Row:
    body = {
        "accessor": "",
        "display_name": told.display_name,
        "policies": list(told.policies),
        "created_at": int(told.created_at.timestamp()),
        "created_micros": micros(told.created_at),
        "path": told.path,
        "ttl": told.ttl,
        "max_ttl": 0,
        "renewable": False,
        "type": "batch",
        "meta": dict(told.meta),
        "period": 0,
        "num_uses": 0,
        "uses_left": None,
        "bound_cidrs": list(told.bound_cidrs),
        "role": told.role,
        "origin": told.origin,
    }
    return Row(
        table=TOKENS.name,
        key=digest,
        revision=0,
        body=body,
        owner=told.parent,
        expires_at=told.expires_at,
    )
