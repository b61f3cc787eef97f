"""Renewals of leases: those that come while a transaction is under way share the next one.

The revision that a renewal was decided on and its fence are checked one by one, so whoever is overtaken harms
no other. A commit that is lost fails all that shared it, and each may have happened.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from secrethub.crypto.keyring import Keyring
from secrethub.errors import Stale
from secrethub.leases.lease import Lease
from secrethub.storage import leases
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence, hold_shared_for

_MOST = 256
"""Renewals of one transaction."""

_RENEW = f"""WITH held AS (
        SELECT l.id FROM leases l JOIN unnest($1::text[], $2::bigint[]) AS w(id, revision)
            ON l.id = w.id AND l.revision = w.revision
        WHERE state = 'live' AND revoked_at IS NULL AND expires_at > {leases.NOW}
        ORDER BY l.id FOR NO KEY UPDATE OF l)
    UPDATE leases SET revision = u.revision + 1, renewed_at = u.renewed_at, expires_at = u.expires_at,
        mac = u.mac, due_at = to_timestamp(u.expires_at / 1000000.0)
    FROM held JOIN unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
        AS u(id, revision, renewed_at, expires_at, mac) USING (id)
    WHERE leases.id = held.id RETURNING leases.id"""  # noqa: S608 - a constant of ours


@dataclass(frozen=True, slots=True)
class _Member:
    fence: Fence
    lease: Lease
    mac: bytes
    future: asyncio.Future[bool]


class Renewals:
    """Of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Member] = []
        self._task: asyncio.Task[None] | None = None

    async def renew(
        self, keyring: Keyring, fence: Fence, lease: Lease, *, now: int, until: int
    ) -> Lease | None:
        """Let a lease end at another instant; None when it has changed, was revoked, or is over.

        Args:
            keyring: for the authentication.
            fence: what the decision rests on.
            lease: as it was found.
            now: the database's time then, in microseconds.
            until: when it is to end, likewise.

        Raises:
            Stale: the decision was overtaken; nothing happened.
            Unavailable: the database does not answer.
        """
        changed = dataclasses.replace(lease, revision=lease.revision + 1, renewed_at=now, expires_at=until)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Member(fence, changed, leases.authentication(keyring, changed), future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="renewals")
        return changed if await future else None

    async def _run(self) -> None:
        while self._waiting:
            members: dict[str, _Member] = {}
            later: list[_Member] = []
            for member in self._waiting:
                # Who went away wants nothing any more; of two renewals of one lease one waits.
                if member.future.done():
                    continue
                if len(members) < _MOST and member.lease.id not in members:
                    members[member.lease.id] = member
                else:
                    later.append(member)
            self._waiting = later
            try:
                await self._carry_out(list(members.values()))
            except Exception as exc:  # noqa: BLE001 - every member is told, each of its own
                for member in members.values():
                    if not member.future.done():
                        member.future.set_exception(copy.copy(exc))

    async def _carry_out(self, members: Sequence[_Member]) -> None:
        async with self._database.write() as connection:
            holds = await hold_shared_for(connection, [member.fence for member in members])
            current = [member.lease for member, held in zip(members, holds, strict=True) if held]
            rows = await connection.fetch(
                _RENEW,
                [lease.id for lease in current],
                [lease.revision - 1 for lease in current],
                [lease.renewed_at for lease in current],
                [lease.expires_at for lease in current],
                [member.mac for member, held in zip(members, holds, strict=True) if held],
            )
        done = {row["id"] for row in rows}
        for member, held in zip(members, holds, strict=True):
            if member.future.done():
                continue
            if held:
                member.future.set_result(member.lease.id in done)
            else:
                member.future.set_exception(Stale("authority moved on"))
