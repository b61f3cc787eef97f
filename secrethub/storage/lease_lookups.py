"""Lookups of leases: those that come while one is under way share the next one.

Each begins after it was asked for, so nobody is told what was so before. A row that is not authentic harms
only who asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from secrethub.crypto.keyring import Keyring
from secrethub.leases.lease import Lease
from secrethub.storage import leases
from secrethub.storage.database import Database
from secrethub.storage.shared_work import SharedWork

_FIND = f"""SELECT {leases.COLUMNS}, {leases.NOW} AS now FROM leases
    WHERE id = ANY($1::text[]) AND state = 'live' AND revoked_at IS NULL AND expires_at > {leases.NOW}"""  # noqa: S608 - ours
_IN_NO_ID = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL takes no text with these; it would refuse all that were asked for together."""


class Lookups:
    """Of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._work: SharedWork[str, Any] = SharedWork("lease-lookups", self._carry_out)

    async def find(self, keyring: Keyring, identifier: str) -> tuple[Lease, int] | None:
        """Return a live lease that has not been revoked, and the database's time; None when there is none.

        Args:
            keyring: for the authentication.
            identifier: as somebody gave it.

        Raises:
            IntegrityFailure: its row is not authentic.
            Unavailable: the database does not answer.
        """
        if _IN_NO_ID.search(identifier):
            return None
        row = await self._work.do(identifier)
        return None if row is None else (leases.verified(keyring, row), row["now"])

    async def _carry_out(self, wanted: Sequence[str]) -> list[Any]:
        async with self._database.read() as connection:
            rows = await connection.fetch(_FIND, list(set(wanted)))
        found = {row["id"]: row for row in rows}
        return [found.get(identifier) for identifier in wanted]
