"""What stays known of rows when the entries about them leave the ledger (``audit/state.py``).

How far buckets of authority came is said in the ``prune`` entry itself. Secrets are named again, in entries
before it, as far as there still are any of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secrethub.audit.event import Record, row_from
from secrethub.audit.state import SECRETS, Written, written_in
from secrethub.engines.own_changes import record
from secrethub.engines.runtime import Core
from secrethub.storage.state_check import floors
from secrethub.storage.state_kv import to_say_again

_NEVER = 1 << 62


class Remains:
    """Gathered from the verified entries of one segment.

    Attributes:
        since: instant of the oldest, in microseconds since the epoch.
        until: instant of the newest.
    """

    def __init__(self) -> None:
        self.since = _NEVER
        self.until = 0
        self._floors = floors()
        self._secrets: dict[str, Written] = {}

    def feed(self, records: Sequence[Record]) -> None:
        """Take in entries."""
        self._floors.feed([row_from(one) for one in records])
        for one in records:
            self.since, self.until = min(self.since, one.entry.at), max(self.until, one.entry.at)
            if one.signature == b"":
                continue
            for said in written_in(one.entry.detail):
                known = self._secrets.get(said.key)
                if said.table == SECRETS and (known is None or said.revision > known.revision):
                    self._secrets[said.key] = said

    async def say_again(self, core: Core, since: int) -> None:
        """Write down what must stay known of secrets; doing so twice does no harm.

        Args:
            core: unsealed.
            since: instant of the newest entry of the segment before it.

        Raises:
            Unavailable, Sealed: it could not be written down.
        """
        async with core.database.read() as connection:
            rows = await to_say_again(connection, core.keyring(), self._secrets, since, self.until)
        if rows:
            await record(core, "ledger.restate", "sys/audit/archive", rows)

    def detail(self) -> dict[str, Any]:
        """Return what the ``prune`` entry says of rows."""
        return self._floors.detail(self.until)
