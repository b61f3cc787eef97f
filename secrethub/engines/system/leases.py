"""``sys/leases``: one lease at a time: looked up, renewed and revoked.

Whoever a lease was made for, or holds what that was made from, may do so with the ``default`` policy. Anybody
else needs ``sudo`` on the path besides, and is told no more of a lease that is not his than of none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from secrethub.clock import from_micros, micros
from secrethub.engines.answers import Nothing
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.lease_ending import end_these
from secrethub.engines.leasing import Held, is_leased
from secrethub.engines.question import question_of
from secrethub.engines.system.answers import LeaseAnswer
from secrethub.engines.token.known import lineage_of
from secrethub.errors import InvalidRequest, PermissionDenied, Stale, Unavailable
from secrethub.ids import is_uuid
from secrethub.leases.deadlines import renewed, seconds_left
from secrethub.leases.lease import Lease
from secrethub.policy.builtin import ROOT
from secrethub.policy.decision import Allowed, decide
from secrethub.storage import lease_ends, leases
from secrethub.storage.authority import TOKENS
from secrethub.storage.fence import hold_shared
from secrethub.wire.durations import format_rfc3339, parse_duration

INVALID = "invalid lease"
_NAMED = frozenset({"lease_id", "increment", "sync"})


class LookUpLease(msgspec.Struct, frozen=True):
    """Which lease."""

    lease_id: str = ""


class RenewLease(msgspec.Struct, frozen=True):
    """Which lease, and for how many seconds from now; 0 or absent for as long as it was made for."""

    lease_id: str = ""
    increment: str | int | None = None


class RevokeLease(msgspec.Struct, frozen=True):
    """Which lease, and whether to answer only when it is gone at its target."""

    lease_id: str = ""
    sync: bool = False


def lease_operations() -> tuple[Operation, ...]:
    """Return the operations on one lease, under their old paths, too."""
    return (
        Operation(
            name="lease.lookup",
            method="write",
            pattern="leases/lookup",
            handler=look_up,
            response=LeaseAnswer,
            capability="update",
            request=LookUpLease,
            plain=_NAMED,
            summary="Show a lease.",
        ),
        *(
            Operation(
                name="lease.renew",
                method="write",
                pattern=pattern,
                handler=renew,
                response=Nothing,
                capability="update",
                request=RenewLease,
                changes=True,
                wraps=False,
                plain=_NAMED,
                summary="Let a lease last longer.",
            )
            for pattern in ("leases/renew", "leases/renew/{lease*}", "renew", "renew/{lease*}")
        ),
        *(
            Operation(
                name="lease.revoke",
                method="write",
                pattern=pattern,
                handler=revoke,
                response=Nothing,
                capability="update",
                request=RevokeLease,
                changes=True,
                plain=_NAMED,
                summary="End a lease.",
            )
            for pattern in ("leases/revoke", "leases/revoke/{lease*}", "revoke", "revoke/{lease*}")
        ),
    )


async def look_up(context: Context, body: LookUpLease) -> Answer:
    """Answer what is known of a lease, but nothing of what it stands for."""
    lease, now = await _mine(context, body.lease_id)
    return Answer(data=shown(lease, now))


async def renew(context: Context, body: RenewLease) -> Answer:
    """Let a lease last longer, first at its target; within its maximum and its owner's life."""
    core = context.core
    lease, now = await _mine(context, body.lease_id)
    if not lease.renewable:
        raise InvalidRequest("lease is not renewable")
    wanted = parse_duration(body.increment or 0) or seconds_left(lease.issued_at, lease.expires_at)
    until = renewed(
        now, wanted, max_expires_at=lease.max_expires_at, owner_ends=await _owner_ends(context, lease)
    )
    if until <= now:
        raise InvalidRequest("the lease has reached its maximum")
    if until > lease.expires_at:
        found = await core.mounts.by_uuid(lease.mount)
        if found is None or not is_leased(found[1]):
            raise InvalidRequest("the mount that the lease was made by is gone")
        held = Held(lease=lease, data=leases.opened_data(core.keyring(), lease))
        await found[1].extend(core, found[0], held, from_micros(until))
    written = await core.renewals.renew(core.keyring(), context.fence, lease, now=now, until=until)
    if written is None:
        raise Stale("the lease has changed")
    context.fence.written.append(written)
    left = seconds_left(now, until)
    warnings = ("the lease does not last as long as was asked for: it, or its owner, ends before",)
    return Answer(
        lease_id=lease.id,
        renewable=True,
        lease_duration=left,
        warnings=warnings if left < wanted else (),
        detail={"lease": lease.id, "ttl": left},
    )


async def revoke(context: Context, body: RevokeLease) -> Answer:
    """End a lease: from now on it cannot be renewed; with ``sync`` it is gone when this returns."""
    core = context.core
    lease, _ = await _mine(context, body.lease_id)
    async with core.database.write() as connection:
        await hold_shared(connection, context.fence)
        await lease_ends.order(connection, [lease.id])
    if body.sync:
        for reason in (await end_these(core, [lease.id], asker(context))).values():
            raise Unavailable(f"the lease could not be ended yet, this goes on by itself: {reason}")
    return Answer(detail={"lease": lease.id})


def asker(context: Context) -> str:
    """Return how the ledger names who asks."""
    identity = context.identity
    assert identity is not None
    return f"{identity.kind}:{identity.key[:36]}:{identity.name}"


def shown(lease: Lease, now: int) -> Mapping[str, Any]:
    """Return what a lookup tells."""
    return {
        "id": lease.id,
        "issue_time": format_rfc3339(from_micros(lease.issued_at)),
        "expire_time": format_rfc3339(from_micros(lease.expires_at)),
        "last_renewal": format_rfc3339(from_micros(lease.renewed_at)) if lease.renewed_at else None,
        "renewable": lease.renewable and lease.max_expires_at > now,
        "ttl": seconds_left(now, lease.expires_at),
    }


async def _mine(context: Context, named: str) -> tuple[Lease, int]:
    """Return the lease that a request names, and the database's time, if the caller may work at it.

    Raises:
        InvalidRequest: there is none, or it is somebody else's: which of that is not told.
        IntegrityFailure: its row is not authentic.
    """
    core, identity = context.core, context.identity
    assert identity is not None
    identifier = context.params.get("lease") or named
    if not identifier:
        raise InvalidRequest("missing lease_id")
    found = await core.lookups.find(core.keyring(), identifier)
    if found is None:
        raise InvalidRequest(INVALID)
    if identity.key not in found[0].lineage and not await may_sudo(context):
        raise InvalidRequest(INVALID)
    return found


async def may_sudo(context: Context) -> bool:
    """Tell whether the caller has ``sudo`` on the path, by the same decision as the request's."""
    identity = context.identity
    assert identity is not None
    if ROOT in identity.policies:
        return True
    core = context.core
    question = question_of(
        await core.mounts.route("write", context.path), "write", context.path, context.when
    )
    sudo = msgspec.structs.replace(question, needs_sudo=True)
    return isinstance(decide(sudo, await core.policies.compiled(identity)), Allowed)


async def _owner_ends(context: Context, lease: Lease) -> int:
    """Return when the owner ends by itself, in microseconds; 0 for never.

    Raises:
        InvalidRequest: it has ended.
    """
    identity, core = context.identity, context.core
    assert identity is not None
    if identity.key == lease.owner:
        ends = identity.good_until
        return 0 if ends is None or identity.kind == "agent" else micros(ends)
    if is_uuid(lease.owner):
        return 0
    row = await core.authority.get(TOKENS, lease.owner)
    if row is None:
        # A batch token, which cannot be renewed, so the lease ends with it at the latest already.
        return lease.expires_at
    try:
        lives = [
            one.expires_at for one in await lineage_of(core, row, context.now) if one.expires_at is not None
        ]
    except PermissionDenied as exc:
        raise InvalidRequest(INVALID) from exc
    return micros(min(lives)) if lives else 0
