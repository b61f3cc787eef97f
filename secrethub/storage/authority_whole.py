"""A table of authority kept in memory as a whole: what is not there is known as fast as what is.

Read once, and row by row again when a change is announced. Rows of a bucket that is not authentic are asked
for each time, and refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from secrethub.errors import IntegrityFailure
from secrethub.storage.authority import Authority, Row, Table
from secrethub.storage.freshness import Caches, Changed

_DOUBTFUL = 10_000
"""Announced rows after which all are read again at once."""


class WholeTable:
    """One table as this process knows it."""

    def __init__(self, authority: Authority, caches: Caches, table: Table) -> None:
        self._authority = authority
        self._table = table
        self._known: dict[str, Row] | None = None
        self._broken: Mapping[int, IntegrityFailure] = {}
        self._doubtful: dict[str, int] = {}
        """Keys that were announced since, or while, what is known was read; by which announcement last."""
        self._announcements = 0
        self._loading = asyncio.Lock()
        self._drops = 0
        caches.subscribe(self._announced)
        caches.on_flush(self.drop)

    def _announced(self, change: Changed) -> None:
        table, _, key = change.key.partition("/")
        if table == self._table.name and change.kind in {"authority", "issued"}:
            self._announcements += 1
            self._doubtful[key] = self._announcements
            if len(self._doubtful) > _DOUBTFUL:
                self.drop()

    def drop(self) -> None:
        """Forget every row; whoever asks next reads them."""
        self._known = None
        self._doubtful.clear()
        self._drops += 1

    async def find(self, key: str) -> Row | None:
        """Return a row, or None.

        Raises:
            IntegrityFailure: the row, or its bucket, is not authentic.
            Sealed, Unavailable: it cannot be read.
        """
        known = self._known if self._known is not None else await self._load()
        broken = bool(self._broken) and self._table.bucket(key) in self._broken
        if not broken and key not in self._doubtful:
            return known.get(key)
        announced = self._doubtful.get(key)
        row = await self._authority.get(self._table, key)
        # Unless it was announced again, what was read is as new as the announcement.
        if not broken and known is self._known and announced == self._doubtful.get(key):
            self._doubtful.pop(key, None)
            known.pop(key, None)
            if row is not None:
                known[key] = row
        return row

    async def _load(self) -> dict[str, Row]:
        async with self._loading:
            if self._known is not None:
                return self._known
            drops = self._drops
            self._doubtful.clear()  # what is announced from now on may not be seen by the statement
            rows, self._broken = await self._authority.everything(self._table)
            known = {row.key: row for row in rows}
            if drops == self._drops:
                self._known = known
            return known
