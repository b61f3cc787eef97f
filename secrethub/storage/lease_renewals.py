"""Renewals of leases: those that come while a transaction is under way share the next one.

The revision that a renewal was decided on and its fence are checked one by one, so whoever is overtaken harms
no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from secrethub.audit.state import written_row
from secrethub.crypto.keyring import Keyring
from secrethub.errors import SecretHubError, Stale
from secrethub.leases.lease import Lease
from secrethub.storage import leases
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence, hold_shared_for
from secrethub.storage.shared_work import SharedWork

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
class _Renewal:
    fence: Fence
    lease: Lease
    mac: bytes


class Renewals:
    """Of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._work: SharedWork[_Renewal, bool] = SharedWork(
            "renewals", self._carry_out, lambda one: one.lease.id
        )

    async def renew(
        self, keyring: Keyring, fence: Fence, lease: Lease, *, now: int, until: int
    ) -> dict[str, Any] | None:
        """Let a lease end at another instant, and return what the ledger keeps of its row.

        None when it has changed, was revoked, or is over.

        Args:
            keyring: for the authentication.
            fence: what the decision rests on.
            lease: as it was found.
            now: the database's time then, in microseconds.
            until: when it is to end, likewise.

        Raises:
            Stale: the decision was overtaken; nothing happened.
            Unavailable: the database does not answer; it may have happened.
        """
        changed = msgspec.structs.replace(
            lease, revision=lease.revision + 1, renewed_at=now, expires_at=until
        )
        mac = leases.authentication(keyring, changed)
        if not await self._work.do(_Renewal(fence, changed, mac)):
            return None
        return written_row(leases.TABLE, changed.id, changed.revision, mac)

    async def _carry_out(self, wanted: Sequence[_Renewal]) -> list[bool | SecretHubError]:
        async with self._database.write() as connection:
            holds = await hold_shared_for(connection, [one.fence for one in wanted])
            current = [one for one, held in zip(wanted, holds, strict=True) if held]
            rows = await connection.fetch(
                _RENEW,
                [one.lease.id for one in current],
                [one.lease.revision - 1 for one in current],
                [one.lease.renewed_at for one in current],
                [one.lease.expires_at for one in current],
                [one.mac for one in current],
            )
        done = {row["id"] for row in rows}
        return [
            one.lease.id in done if held else Stale("authority moved on")
            for one, held in zip(wanted, holds, strict=True)
        ]
