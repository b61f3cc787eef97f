"""What the ledger says of the rows that it watches over, so that a former state of them is recognised.

The detail of an entry that follows a change names every row that was changed, under ``written``: its table,
key, revision and authentication; a deleted row has no authentication, and a revision above its last.

* A row of authority lies in a bucket that counts its changes (``storage/authority_rows.py``). Its revision
  is the bucket's at that change. A bucket is authentic in exactly one state at each revision. So the highest
  revision that the ledger knows of a bucket, its *floor*, tells whether an older state was put back.
* A secret has a revision of its own (``storage/kv.py``).

A process that dies between its commit and the entry about it leaves a row that is newer than what the ledger
knows. That is no damage: nobody without the keys can make one.

When entries are pruned, ``prune`` says which ``floors`` they gave, and ``until`` when they reached; what they
said of secrets that there still are is said again before. When a restore is accepted, its entry says which
floors there are from then on.

What is written without a key, while the cluster is sealed, can be forged until it is adopted. It only ever
raises floors: that may make the state look wrong, never hide that it is.

Pure: nothing here reads a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from secrethub.audit.event import FIELDS, Row

SECRETS = "kv_secrets"
"""The table of secrets, which has no buckets."""

_DETAIL = 12
"""Its place in a row of the ledger."""
_MARKS = ('"written":', '"floors":')


class Written(msgspec.Struct, frozen=True):
    """A row that was changed.

    Attributes:
        table: where it is.
        key: its primary key; of a secret its id.
        revision: what it reached.
        mac: its authentication in hexadecimal digits, empty when it was deleted.
    """

    table: str
    key: str
    revision: int
    mac: str


class Floor(NamedTuple):
    """A revision that was reached, and the entry that says so."""

    revision: int
    stream: str
    number: int


class _Detail(msgspec.Struct, frozen=True):
    written: tuple[Written, ...] = ()
    floors: Mapping[str, tuple[tuple[int, int], ...]] = {}
    until: int = 0


_NOTHING = _Detail()
_decode = msgspec.json.Decoder(_Detail).decode


def written_row(table: str, key: str, revision: int, authentication: bytes) -> dict[str, Any]:
    """Return what the ledger keeps of a changed row; ``authentication`` is empty when it was deleted."""
    return {"table": table, "key": key, "revision": revision, "mac": authentication.hex()}


def written_in(detail: str) -> tuple[Written, ...]:
    """Return the rows that an entry with this detail says were changed; other details name none."""
    return _said(detail).written


def floors_detail(floors: Iterable[tuple[str, int, int]]) -> dict[str, Any]:
    """Return how an entry's detail says which revisions were reached, by table and bucket."""
    told: dict[str, list[tuple[int, int]]] = {}
    for table, bucket, revision in floors:
        told.setdefault(table, []).append((bucket, revision))
    return {"floors": told}


def _said(detail: str) -> _Detail:
    if not any(mark in detail for mark in _MARKS):
        return _NOTHING
    try:
        return _decode(detail)
    except msgspec.MsgspecError:
        return _NOTHING


class Floors:
    """The floors of buckets, gathered from entries in any order.

    Attributes:
        until: instant (microseconds since the epoch) up to which entries were pruned, 0 for never.
    """

    __slots__ = ("_buckets", "_floors", "_forgotten", "until")

    def __init__(self, buckets: Mapping[str, Callable[[str], int]]) -> None:
        """Begin.

        Args:
            buckets: tables of authority, and for each how a key's bucket is found.
        """
        self._buckets = buckets
        self._floors: dict[tuple[str, int], Floor] = {}
        self._forgotten: dict[tuple[str, int], int] = {}
        self.until = 0

    def get(self, table: str, bucket: int) -> Floor | None:
        """Return a bucket's floor, or None when no entry speaks of it."""
        return self._floors.get((table, bucket))

    def forgotten(self, table: str, bucket: int) -> int:
        """Return up to which revision of a bucket there may be rows that no entry names any more."""
        return self._forgotten.get((table, bucket), 0)

    def feed(self, rows: Sequence[Row]) -> None:
        """Take in entries, as rows of the ledger."""
        for row in rows:
            said = _said(row[_DETAIL])
            if said is _NOTHING:
                continue
            for one in said.written:
                bucket_of = self._buckets.get(one.table)
                if bucket_of is not None:
                    self._raise(one.table, bucket_of(one.key), Floor(one.revision, row[0], row[1]))
            if row[FIELDS + 1] == b"":
                continue
            for table, floors in said.floors.items():
                for bucket, revision in floors:
                    self._raise(table, bucket, Floor(revision, row[0], row[1]))
                    place = (table, bucket)
                    self._forgotten[place] = max(revision, self._forgotten.get(place, 0))
            self.until = max(self.until, said.until)

    def detail(self, until: int) -> dict[str, Any]:
        """Return what a ``prune`` entry says of entries, the last of them at ``until``, taken in here."""
        known = sorted(self._floors.items())
        told = floors_detail((table, bucket, floor.revision) for (table, bucket), floor in known)
        return {**told, "until": max(until, self.until)}

    def _raise(self, table: str, bucket: int, floor: Floor) -> None:
        known = self._floors.get((table, bucket))
        if known is None or floor.revision > known.revision:
            self._floors[table, bucket] = floor
