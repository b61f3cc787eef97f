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
from secrethub.errors import Stale
from secrethub.leases.lease import Lease
from secrethub.storage import leases
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence
from secrethub.storage.shared_work import SharedWork

_RENEW = "SELECT lease, result FROM leases_renew($1, $2, $3, $4, $5, $6, $7)"


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
            "renewals", self._carry_out, key=lambda one: one.lease.id
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

    async def _carry_out(self, wanted: Sequence[_Renewal]) -> list[bool | Exception]:
        rows = await self._database.once(
            _RENEW,
            [one.lease.id for one in wanted],
            [one.lease.revision for one in wanted],
            [one.lease.renewed_at for one in wanted],
            [one.lease.expires_at for one in wanted],
            [one.mac for one in wanted],
            [one.fence.generation for one in wanted],
            [one.fence.seal_epoch for one in wanted],
        )
        results = {row["lease"]: row["result"] for row in rows}
        return [
            Stale("authority moved on") if result == "stale" else result == "done"
            for result in (results.get(one.lease.id) for one in wanted)
        ]
