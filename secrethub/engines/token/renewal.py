"""Tokens live longer: one's own, another one, one by its accessor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from secrethub.auth.tokens import open_accessor
from secrethub.engines.answers import TokenGiven
from secrethub.engines.engine import Answer, Auth, Context, Hidden, Operation
from secrethub.engines.origin import origin_of
from secrethub.engines.token.known import find_by_accessor, find_token, lineage_of
from secrethub.engines.token.lifetimes import Lifetime, capped, longest, shorter
from secrethub.engines.token.logins import present_terms
from secrethub.engines.token.lookup import own_token
from secrethub.engines.token.roles import role_of
from secrethub.errors import InvalidRequest, PermissionDenied, Stale
from secrethub.storage.authority import TOKEN_ROLES, TOKENS, Row
from secrethub.wire.durations import parse_duration

_PLAIN = frozenset({"increment"})


class RenewSelf(msgspec.Struct, frozen=True):
    """``increment``: how long it shall live from now on."""

    increment: str | int | None = None


class Renew(Hidden, msgspec.Struct, frozen=True):
    """``token``: which one, the caller's own when it is not given; ``increment`` as for one's own."""

    token: str = ""
    increment: str | int | None = None


class RenewAccessor(Hidden, msgspec.Struct, frozen=True):
    """``accessor``: of the token; ``increment`` as for one's own."""

    accessor: str = ""
    increment: str | int | None = None


def renewal_operations() -> tuple[Operation, ...]:
    """Return the operations that renew."""
    return (
        Operation(
            name="token.renew-self",
            method="write",
            pattern="renew-self",
            handler=renew_self,
            response=TokenGiven,
            capability="update",
            request=RenewSelf,
            changes=True,
            plain=_PLAIN,
            summary="Let one's own token live longer.",
        ),
        Operation(
            name="token.renew",
            method="write",
            pattern="renew",
            handler=renew,
            response=TokenGiven,
            capability="update",
            request=Renew,
            changes=True,
            plain=_PLAIN,
            summary="Let a token live longer.",
        ),
        Operation(
            name="token.renew-accessor",
            method="write",
            pattern="renew-accessor",
            handler=renew_accessor,
            response=TokenGiven,
            capability="update",
            request=RenewAccessor,
            changes=True,
            plain=_PLAIN,
            summary="Let the token that has an accessor live longer.",
        ),
    )


async def renew_self(context: Context, body: RenewSelf) -> Answer:
    """Let the caller's token live for another period, up to its maximum."""
    token = "" if context.token is None else context.token.reveal()
    return await _renew(context, await own_token(context), body.increment, token)


async def renew(context: Context, body: Renew) -> Answer:
    """Let a token live for another period."""
    if not body.token:
        return await renew_self(context, RenewSelf(body.increment))
    row = await find_token(context.core, body.token)
    if row is None:
        raise InvalidRequest("token not found")
    return await _renew(context, row, body.increment, body.token)


async def renew_accessor(context: Context, body: RenewAccessor) -> Answer:
    """Let a token live for another period; the answer does not show it."""
    return await _renew(context, await find_by_accessor(context, body.accessor), body.increment, "")


async def _renew(context: Context, row: Row, increment: str | int | None, token: str) -> Answer:
    core = context.core
    if row.body["type"] == "batch":
        raise InvalidRequest("batch tokens cannot be renewed")
    own = context.identity is not None and context.identity.key == row.key
    if not own:
        # The caller's own was looked at already, and its last use may be this one.
        await lineage_of(core, row, context.now)
    if row.expires_at is None or not row.body["renewable"]:
        raise InvalidRequest("lease is not renewable")
    terms = await _terms(context, row)
    wanted = terms.period or parse_duration(increment or 0) or terms.ttl
    created = datetime.fromtimestamp(row.body["created_at"], UTC)
    asked = context.now + timedelta(seconds=wanted)
    most = longest(terms)
    until = asked if most is None else min(asked, created + timedelta(seconds=most))
    if until <= context.now:
        raise InvalidRequest("past the max TTL, cannot renew")
    ttl = int((until - context.now).total_seconds())
    # Whoever shortens a life takes something away: that must be known everywhere before it is answered.
    shortens = until < row.expires_at
    opened = core.authority.change(context.fence) if shortens else core.authority.issue(context.fence)
    async with opened as change:
        current = await change.get(TOKENS, row.key)
        if current is None:
            raise PermissionDenied("the token is gone")
        if not shortens and current.expires_at is not None and until < current.expires_at:
            raise Stale("the token was renewed for longer meanwhile")
        renewed = {**current.body, "renewed_at": int(context.now.timestamp())}
        await change.put(TOKENS, row.key, renewed, owner=current.owner, expires_at=until)
    names = tuple(row.body["policies"])
    return Answer(
        auth=Auth(
            client_token=token,
            accessor=open_accessor(core.keyring(), row.key, row.body),
            policies=names,
            token_policies=names,
            metadata=row.body["meta"],
            lease_duration=ttl,
            renewable=True,
            orphan=row.owner is None,
            num_uses=current.body["uses_left"] or 0,
        ),
        warnings=capped(wanted, ttl) if until < asked else (),
        detail={"token": row.key[:16], "ttl": ttl},
    )


async def _terms(context: Context, row: Row) -> Lifetime:
    """Return how a token is renewed now: as the role or the login that it was made by says, within its own.

    Raises:
        InvalidRequest: what it was made by is gone.
    """
    body, core = row.body, context.core
    origin = origin_of(row)
    if origin is not None:
        return await present_terms(context, row, origin)
    mount = await core.mounts.auth_method(body["path"])
    bound = mount.max_lease_ttl if mount is not None else 0
    own = Lifetime(ttl=body["ttl"], max_ttl=body["max_ttl"], period=body["period"], bound=bound)
    if body["role"]:
        found = await core.authority.get(TOKEN_ROLES, body["role"])
        if found is None:
            raise InvalidRequest(f"original token role {body['role']} could not be found, not renewing")
        role = role_of(found)
        own = msgspec.structs.replace(
            own,
            period=shorter(own.period, role.period) if role.period else 0,
            max_ttl=shorter(own.max_ttl, role.explicit_max_ttl),
        )
    return msgspec.structs.replace(own, period=shorter(own.period, bound) if own.period else 0)
