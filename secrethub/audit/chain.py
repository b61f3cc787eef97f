"""A stream of the ledger: writing it, and checking it again entry by entry.

Pure: nothing here stores or fetches. What is not here: checks across streams
(:mod:`secrethub.audit.verification`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NoReturn, TypeAlias

import msgspec

from secrethub.audit.event import (
    GENESIS,
    Entry,
    Kind,
    Record,
    Row,
    entry_hash,
    entry_signature,
    record_from,
    row_hash,
    signature_message,
)
from secrethub.crypto.digests import equal
from secrethub.crypto.prepared_mac import PreparedMac

MAX_TEXT = 4096
"""Characters kept of any field but ``detail``."""

Reason: TypeAlias = Literal[
    "edited",
    "wrong genesis",
    "bad signature",
    "gap",
    "reordered",
    "duplicate",
    "inserted",
    "truncated",
    "not adopted",
    "forked",
]
"""What is wrong with a record.

``edited``: its fields and the digest before it do not give its digest. ``wrong genesis``: the same of
a first record, so either it was edited or the stream once began before it. ``bad signature``: chained
rightly, but not by a holder of the key. ``gap``: it is missing. ``reordered``: it comes later than its
number says. ``duplicate``: its number was there already. ``inserted``: it belongs to another stream, or
follows the end of this one. ``truncated``: another stream proves that it existed. ``not adopted``: it was
written without a key and no signed entry vouches for it. ``forked``: rightly chained and signed, but not
what a checkpoint vouches for.
"""


class Verified(msgspec.Struct, frozen=True):
    """A stream in order: ``count`` is the number of its last entry, ``head`` that entry's digest."""

    count: int
    head: bytes


class Bad(msgspec.Struct, frozen=True):
    """The first record of a stream that is not in order."""

    stream: str
    number: int
    reason: Reason


class Chain:
    """The writing end of a stream. One writer at a time; hidden in ``repr``, refuses pickling.

    Attributes:
        stream: UUID of the stream.
        number: number of the newest entry, 0 before the first.
        head: digest of the newest entry.
    """

    __slots__ = ("_mac", "head", "number", "stream")

    def __init__(self, stream: str, key: bytes | None, number: int = 0, head: bytes = GENESIS) -> None:
        """Continue a stream, by default at its beginning.

        Args:
            stream: its UUID.
            key: signs the entries; None while there is no key.
            number: number of the newest entry.
            head: digest of the newest entry.
        """
        self.stream = stream
        self.number = number
        self.head = head
        self._mac = None if key is None else PreparedMac(key)

    def append(
        self,
        at: int,
        kind: Kind,
        request_id: str = "",
        actor: str = "",
        operation: str = "",
        path: str = "",
        outcome: str = "",
        reason: str = "",
        client: str = "",
        door: str = "",
        detail: str = "{}",
    ) -> Record:
        """Chain one more entry: the fields of :class:`~secrethub.audit.event.Entry` in their order.

        Characters that do not print are escaped and long texts cut, so that no name can forge a line
        of a log or keep an entry, and the entries committed with it, from being stored.
        """
        texts = (request_id, actor, operation, path, outcome, reason, client, door, detail)
        return record_from(self.extend(at, [(kind, *texts)])[0])

    def extend(self, at: int, entries: Iterable[tuple[str, ...]]) -> list[Row]:
        """Chain many entries of one instant: for each, the fields from ``kind`` on; returned as rows.

        Plain tuples, because a busy process chains every request here.
        """
        rows: list[Row] = []
        stream, number, head, sign = self.stream, self.number, self.head, self._mac
        for entry in entries:
            fields = entry
            together = "".join(entry[1:-1])
            if len(together) > MAX_TEXT or not (together.isprintable() and entry[-1].isprintable()):
                fields = (entry[0], *map(_printable, entry[1:-1]), _escaped(entry[-1]))
            number += 1
            row = (stream, number, at, *fields)
            head = row_hash(head, row)
            rows.append((*row, head, b"" if sign is None else sign.digest(signature_message(head))))
        self.number, self.head = number, head
        return rows

    def __repr__(self) -> str:
        return f"Chain(stream={self.stream!r}, number={self.number})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a chain is not pickled: it holds the signing key")


class StreamVerifier:
    """Checks the records of one stream as they are fed in order of their numbers."""

    __slots__ = ("_key", "_keyed", "bad", "closed", "head", "number", "stream")

    def __init__(
        self, stream: str, key: bytes | None, number: int = 0, head: bytes = GENESIS, *, keyed: bool = False
    ) -> None:
        """Begin after the entry ``number`` with digest ``head``, by default at the beginning.

        Args:
            stream: its UUID.
            key: with which every entry must be signed; None for a stream written without a key, in
                which none may be.
            number: number of the entry before the first one fed.
            head: digest of that entry.
            keyed: without a key here, the stream was written with one: its entries are signed, and what
                the signatures are cannot be told.
        """
        self.stream = stream
        self.number = number
        self.head = head
        self.bad: Bad | None = None
        self.closed = False
        self._key = key
        self._keyed = keyed

    def feed(self, record: Record) -> Bad | None:
        """Check one more record; after the first bad one, look only whether a missing one follows."""
        entry = record.entry
        if self.bad is not None:
            if self.bad.reason == "gap" and (entry.stream, entry.number) == (self.stream, self.bad.number):
                self.bad = Bad(self.stream, entry.number, "reordered")
            return self.bad
        reason, number = self._judge(record), entry.number
        if reason is not None:
            self.bad = Bad(self.stream, self.number + 1 if reason == "gap" else number, reason)
            return self.bad
        self.number = entry.number
        self.head = record.hash
        self.closed = entry.kind == "close"
        return None

    def finish(self) -> Verified | Bad:
        """Return the verdict on what was fed."""
        return self.bad or Verified(self.number, self.head)

    def _judge(self, record: Record) -> Reason | None:
        entry = record.entry
        if entry.stream != self.stream or (self.closed and entry.number > self.number):
            return "inserted"
        if entry.number <= self.number:
            return "duplicate"
        if entry.number > self.number + 1:
            return "gap"
        if not equal(_recomputed(self.head, entry), record.hash):
            return "wrong genesis" if self.number == 0 else "edited"
        if self._key is None:
            return None if (record.signature != b"") is self._keyed else "bad signature"
        if not equal(entry_signature(self._key, record.hash), record.signature):
            return "bad signature"
        return None


def _recomputed(previous: bytes, entry: Entry) -> bytes:
    """Return the digest, or nothing for fields that no entry can have (a negative time, …)."""
    try:
        return entry_hash(previous, entry)
    except (OverflowError, TypeError, UnicodeEncodeError):
        return b""


def _printable(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    return _escaped(text)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
