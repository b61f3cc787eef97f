"""Leases are made: an intent first, and then, in the same row and in one statement, a lease.

The intent is committed before anything happens at its target, so that whatever is made there is also undone.
It becomes live unless somebody has begun to take it back, or its owner has ended: whoever made something at
the target then has to undo it. So there is never both or neither.

How many leases there may be (``engines/lease_quotas.py``) is looked at in the transaction of the intent,
under a lock for each quota: whoever asks for a lease next, on whatever node, sees those planned before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec

from secrethub.crypto.keyring import Keyring
from secrethub.errors import LeaseQuotaExceeded, Stale
from secrethub.leases.deadlines import Terms, first_deadlines
from secrethub.leases.lease import Lease
from secrethub.storage import leases
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence, hold_shared_for
from secrethub.storage.shared_work import SharedWork

GRACE_SECONDS = 60.0
"""From the commit of an intent until it is taken back, unless it has become a lease."""
_RETRY_SECONDS = 30.0
"""After which it makes sense to ask again where there were too many: some may have ended."""

_PLAN = f"""INSERT INTO leases ({leases.COLUMNS}, due_at)
    SELECT u.id, u.revision, 'intent', u.mount, u.role, u.target, u.owner, u.owner_name,
        ARRAY(SELECT jsonb_array_elements_text(u.lineage)), u.issued_at, 0, u.expires_at, u.max_expires_at,
        u.renewable, u.sealed, u.mac, clock_timestamp() + make_interval(secs => $15)
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::jsonb[], $9::bigint[], $10::bigint[], $11::bigint[], $12::boolean[], $13::bytea[], $14::bytea[])
        AS u(id, revision, mount, role, target, owner, owner_name, lineage, issued_at, expires_at,
             max_expires_at, renewable, sealed, mac)"""  # noqa: S608 - a constant of ours

_MAKE = """WITH held AS (
        SELECT id FROM leases WHERE id = ANY($1::text[]) AND state = 'intent' AND attempts = 0
            AND revoked_at IS NULL AND due_at > clock_timestamp()
        ORDER BY id FOR UPDATE)
    UPDATE leases SET state = 'live', revision = u.revision, sealed = u.sealed, mac = u.mac,
        due_at = to_timestamp(u.expires_at / 1000000.0)
    FROM held JOIN unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[])
        AS u(id, revision, sealed, mac, expires_at) USING (id)
    WHERE leases.id = held.id RETURNING leases.id"""

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('secrethub.lease-quota/' || $1, 0))"
_COUNT = """SELECT COALESCE(sum(leases), 0)::bigint FROM lease_counts
    WHERE ($1 = '' OR mount = $1) AND ($2 = '' OR role = $2) AND ($3 = '' OR path = $3)
        AND starts_with(path, $4)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """How many leases there may be of some kind. Everything that is not empty must hold of them.

    Attributes:
        name: of the quota.
        most: leases, those included that are being made or ended.
        mount: UUID of the mount that they are of.
        role: of its engine.
        path: at which they were asked for.
        prefix: that this begins with.
    """

    name: str
    most: int
    mount: str = ""
    role: str = ""
    path: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class _Plan:
    fence: Fence
    draft: Lease
    terms: Terms
    bound: Bound | None


class Makings:
    """Of one process. Those that come while a transaction is under way share the next one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._plans: SharedWork[tuple[Keyring, _Plan], Lease] = SharedWork("lease-plans", self._plan)
        self._makes: SharedWork[tuple[Keyring, Lease], bool] = SharedWork("lease-makings", self._make)

    async def plan(
        self,
        keyring: Keyring,
        fence: Fence,
        draft: Lease,
        held: Terms,
        data: Mapping[str, Any],
        bound: Bound | None = None,
    ) -> Lease:
        """Commit the intent of a lease; from then on whatever is made at the target is also undone.

        Args:
            keyring: for the authentication.
            fence: what the decision rests on.
            draft: the lease without its instants and what is sealed.
            held: how long it lives.
            data: what its engine needs to undo whatever comes of it. No password.
            bound: how many there may be, as it was when the decision was made.

        Raises:
            Stale: the decision was overtaken; nothing was planned.
            LeaseQuotaExceeded: there are as many as there may be.
            Unavailable: the database does not answer; nothing has happened at the target.
        """
        sealed = leases.sealed_data(keyring, draft.id, "intent", data)
        draft = msgspec.structs.replace(draft, state="intent", revision=1, sealed=sealed)
        return await self._plans.do((keyring, _Plan(fence, draft, held, bound)))

    async def make(self, keyring: Keyring, intent: Lease, data: Mapping[str, Any]) -> Lease | None:
        """Turn an intent into a lease; None when it is one no more: what was made at the target must go.

        Raises:
            Unavailable: the database does not answer; whether there is a lease is unknown, and the intent or
                the lease ends in its own time.
        """
        lease = msgspec.structs.replace(
            intent,
            state="live",
            revision=intent.revision + 1,
            sealed=leases.sealed_data(keyring, intent.id, "live", data),
        )
        return lease if await self._makes.do((keyring, lease)) else None

    async def _plan(self, wanted: Sequence[tuple[Keyring, _Plan]]) -> list[Lease | Exception]:
        planned: dict[str, Lease] = {}
        async with self._database.write() as connection:
            holds = await hold_shared_for(connection, [plan.fence for _, plan in wanted])
            current = [one for one, held in zip(wanted, holds, strict=True) if held]
            full = await _full(connection, [plan for _, plan in current])
            now = await connection.fetchval(f"SELECT {leases.NOW}")
            rows: list[tuple[Any, ...]] = []
            for keyring, plan in current:
                if plan.draft.id not in full:
                    until, longest = first_deadlines(now, plan.terms)
                    lease = msgspec.structs.replace(
                        plan.draft, issued_at=now, expires_at=until, max_expires_at=longest
                    )
                    planned[lease.id] = lease
                    rows.append(_row(keyring, lease))
            if rows:
                await connection.execute(_PLAN, *map(list, zip(*rows, strict=True)), GRACE_SECONDS)
        return [
            Stale("authority moved on") if not held else planned.get(plan.draft.id) or _exceeded(plan.draft)
            for (_, plan), held in zip(wanted, holds, strict=True)
        ]

    async def _make(self, wanted: Sequence[tuple[Keyring, Lease]]) -> list[bool | Exception]:
        rows = await self._database.once(
            _MAKE,
            [lease.id for _, lease in wanted],
            [lease.revision for _, lease in wanted],
            [lease.sealed for _, lease in wanted],
            [leases.authentication(keyring, lease) for keyring, lease in wanted],
            [lease.expires_at for _, lease in wanted],
        )
        done = {row["id"] for row in rows}
        return [lease.id in done for _, lease in wanted]


async def leases_within(connection: asyncpg.Connection[Any], bound: Bound) -> int:
    """Return how many leases there are of which a quota says how many there may be."""
    found = await connection.fetchval(_COUNT, bound.mount, bound.role, bound.path, bound.prefix)
    return int(found)


async def _full(connection: asyncpg.Connection[Any], plans: Sequence[_Plan]) -> set[str]:
    """Return the ids of those plans that there is no room for, in the order in which they were asked for."""
    bounds = {plan.bound.name: plan.bound for plan in plans if plan.bound is not None}
    room: dict[str, int] = {}
    # All take the locks in this order, so that nobody waits for each other.
    for name in sorted(bounds):
        await connection.execute(_LOCK, name)
        room[name] = bounds[name].most - await leases_within(connection, bounds[name])
    full: set[str] = set()
    for plan in plans:
        if plan.bound is not None:
            room[plan.bound.name] -= 1
            if room[plan.bound.name] < 0:
                full.add(plan.draft.id)
    return full


def _exceeded(draft: Lease) -> LeaseQuotaExceeded:
    path = draft.id.rpartition("/")[0]
    return LeaseQuotaExceeded(f'request path "{path}": lease count quota exceeded', _RETRY_SECONDS)


def _row(keyring: Keyring, lease: Lease) -> tuple[Any, ...]:
    return (
        lease.id,
        lease.revision,
        lease.mount,
        lease.role,
        lease.target,
        lease.owner,
        lease.owner_name,
        msgspec.json.encode(lease.lineage).decode(),
        lease.issued_at,
        lease.expires_at,
        lease.max_expires_at,
        lease.renewable,
        lease.sealed,
        leases.authentication(keyring, lease),
    )
