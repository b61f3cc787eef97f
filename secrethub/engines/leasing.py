"""What engines that lease things out have in common: how a lease is made, and what they must be able to do.

The order of an issue: the plan is committed as an intent, the target is changed, the lease is committed, and
then it is answered (``storage/lease_makings.py``). An engine names what it makes by the lease's ``marker``,
never adopts what is there already, and never completes what was interrupted: it is undone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Protocol, TypeGuard, runtime_checkable

from secrethub.auth.tokens import MAX_TTL
from secrethub.clock import micros
from secrethub.engines.engine import Answer, Context
from secrethub.engines.lease_quotas import bound_of
from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core
from secrethub.errors import LeaseQuotaExceeded, SecretHubError, Stale, Unavailable
from secrethub.ids import base62
from secrethub.leases.deadlines import Terms, seconds_left, terms
from secrethub.leases.lease import Lease
from secrethub.storage import lease_ends, leases
from secrethub.storage.ledger import Note

ACT_SECONDS = 20.0
"""That an engine has for its target; much less than the intent's grace, after which it is undone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A lease, and what its engine knows of it: the plan's data for an intent, else those of the making."""

    lease: Lease
    data: Mapping[str, Any] = field(repr=False)


@runtime_checkable
class LeasedEngine(Protocol):
    """A kind of engine that leases things out. All of this can be repeated, also after it was done."""

    async def revoke(self, core: Core, mount: Mount, target: str, held: Sequence[Held]) -> Mapping[str, str]:
        """End leases of one target; what is gone already is ended.

        Returns:
            Why, by the id, for those that could not be. No secret.

        Raises:
            Unavailable: the target does not answer.
        """
        ...

    async def undo(self, core: Core, mount: Mount, target: str, held: Sequence[Held]) -> Mapping[str, str]:
        """Remove what intents may have left at a target, as :meth:`revoke` does."""
        ...

    async def extend(self, core: Core, mount: Mount, held: Held, until: datetime) -> None:
        """Let what was leased out live until an instant.

        Raises:
            InvalidRequest: it is gone at the target.
            Unavailable: the target does not answer.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be leased out.

    Attributes:
        role: of the engine.
        target: what is asked for it.
        ttl: seconds, of the role; 0 for the mount's.
        max_ttl: likewise.
        renewable: whether it can be renewed.
    """

    role: str
    target: str
    ttl: int = 0
    max_ttl: int = 0
    renewable: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What was made at the target.

    Attributes:
        data: answered; secret.
        kept: what the engine needs to renew and to end it; no password.
    """

    data: Mapping[str, Any] = field(repr=False)
    kept: Mapping[str, Any] = field(repr=False)


async def issue(
    context: Context,
    plan: Plan,
    intend: Callable[[Lease], Mapping[str, Any]],
    act: Callable[[Lease], Awaitable[Made]],
) -> Answer:
    """Lease something out, in the operation of an engine.

    Args:
        context: of the request, with an identity.
        plan: what.
        intend: gives what undoing needs to know, e.g. the name of what is about to be made.
        act: makes it at the target, valid until the lease ends. When it returns or raises, nothing that it
            began may still happen there, but for a time far below the intent's grace.

    Raises:
        Stale: the decision was overtaken; nothing is left over.
        LeaseQuotaExceeded: there are as many as there may be; nothing happened.
        Unavailable: the database or the target does not answer. What may be there is undone.
        InvalidRequest: the target refuses. What may be there is undone.
    """
    core, keyring = context.core, context.core.keyring()
    bound = bound_of(
        (await core.quotas.load()).leases,
        context.path,
        mount=context.mount,
        mount_id=context.mount_id,
        role=plan.role,
    )
    draft = _draft(context, plan)
    try:
        intent = await core.makings.plan(
            keyring, context.fence, draft, _terms(context, plan), intend(draft), bound
        )
    except LeaseQuotaExceeded:
        core.metrics.lease_quota_refusals.inc()
        raise
    try:
        async with asyncio.timeout(ACT_SECONDS):
            made = await act(intent)
    except TimeoutError:
        # It may still happen, so it is undone only after the intent's grace.
        raise Unavailable(f"the target {plan.target} did not answer in time") from None
    except SecretHubError:
        await _take_back(core, intent)
        raise
    lease = await core.makings.make(core.keyring(), intent, made.kept)
    if lease is None:
        await _take_back(core, intent)
        raise Stale("whom the lease was made for has ended")
    context.fence.written.append(leases.written(keyring, lease))
    ttl = seconds_left(lease.issued_at, lease.expires_at)
    return Answer(
        data=made.data,
        lease_id=lease.id,
        renewable=lease.renewable,
        lease_duration=ttl,
        detail={"lease": lease.id, "ttl": ttl},
        undelivered=partial(abandon, core, lease.id, _actor(context)),
    )


async def abandon(core: Core, lease_id: str, actor: str) -> None:
    """Have a lease ended that nobody knows of, for who asked for it was gone before the answer.

    Args:
        core: this process.
        lease_id: of the lease.
        actor: who asked for it, as the ledger names it.

    Raises:
        Unavailable, Sealed: it cannot be ordered now; the lease ends by itself.
    """
    await core.ledger.append(
        Note(
            kind="event",
            request_id="",
            actor=actor,
            operation="lease.abandon",
            path=lease_id,
            outcome="ordered",
            reason="nobody was there to take the answer",
            client="",
            door="",
            detail="{}",
        )
    )
    async with core.database.write() as connection:
        await lease_ends.order(connection, [lease_id])


def leased_kinds(core: Core) -> frozenset[str]:
    """Return the kinds of engine that lease things out."""
    return frozenset(kind for kind, engine in core.mounts.engines.items() if is_leased(engine))


def is_leased(engine: Any) -> TypeGuard[LeasedEngine]:
    """Tell whether an engine leases things out."""
    return _is_leased(engine.__class__)


@lru_cache
def _is_leased(kind: type) -> bool:
    # Once for each: to look for every method of a protocol takes as long as to authenticate a lease.
    return issubclass(kind, LeasedEngine)


async def _take_back(core: Core, intent: Lease) -> None:
    """Have an intent undone now. If that cannot be said, it is after its grace."""
    with contextlib.suppress(SecretHubError):
        await lease_ends.give_up(core.database, intent.id)


def _actor(context: Context) -> str:
    identity = context.identity
    assert identity is not None
    return f"{identity.kind}:{identity.key[:36]}:{identity.name}"


def _terms(context: Context, plan: Plan) -> Terms:
    identity = context.identity
    assert identity is not None
    ends = identity.good_until or identity.expires_at
    return terms(
        ttl=plan.ttl,
        max_ttl=plan.max_ttl,
        mount_ttl=context.lease_ttl or MAX_TTL,
        mount_max_ttl=context.max_lease_ttl,
        most=context.max_lease_ttl or MAX_TTL,
        owner_ends=0 if ends is None or identity.kind == "agent" else micros(ends),
    )


def _draft(context: Context, plan: Plan) -> Lease:
    identity = context.identity
    assert identity is not None
    return Lease(
        id=f"{context.path}/{base62(24)}",
        revision=0,
        state="intent",
        mount=context.mount_id,
        role=plan.role,
        target=plan.target,
        owner=identity.key,
        owner_name=identity.name,
        lineage=identity.lineage or (identity.key,),
        issued_at=0,
        expires_at=0,
        max_expires_at=0,
        renewable=plan.renewable,
        sealed=b"",
    )
