"""Checking a whole ledger: every stream by itself, and what streams say about each other.

Signed entries vouch for other streams (:mod:`secrethub.audit.event`). So the end of a stream cannot be
removed once a later stream follows it, and a stream that was written without a key counts only as far as
a signed entry adopted it. A keyless stream proves nothing about others.

What no entry speaks of leaves no trace here: the newest entries of streams that nothing follows yet, or
such a stream as a whole, can be removed unseen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from secrethub.audit.chain import Bad, StreamVerifier
from secrethub.audit.event import Entry, Record, entry_signature
from secrethub.crypto.digests import equal


class LedgerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a ledger.

    Attributes:
        entries: records that were read.
        streams: streams they belong to.
        bad: the first bad record of every stream that is not in order.
    """

    entries: int
    streams: int
    bad: tuple[Bad, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is in order."""
        return not self.bad

    @property
    def first_bad(self) -> Bad | None:
        """The first bad record, in the order in which the streams were read."""
        return self.bad[0] if self.bad else None


class _Claim(msgspec.Struct, frozen=True):
    """What a signed entry says of a stream: entry ``number`` exists and has the digest ``head``."""

    stream: str
    number: int
    head: str


class _Open(msgspec.Struct, frozen=True):
    follows: _Claim | None = None


class _Adopt(msgspec.Struct, frozen=True):
    streams: tuple[_Claim, ...]


class _Lost(msgspec.Struct, frozen=True):
    stream: str
    first: int
    last: int
    head: str


class LedgerVerifier:
    """Checks a ledger record by record: streams in any order, each in order of its numbers."""

    __slots__ = ("_claims", "_entries", "_key", "_keyless", "_streams")

    def __init__(self, key: bytes) -> None:
        """Begin.

        Args:
            key: the signing key of the cluster.
        """
        self._key = key
        self._entries = 0
        self._streams: dict[str, StreamVerifier] = {}
        self._keyless: dict[str, list[bytes]] = {}
        self._claims: list[tuple[_Claim, bool]] = []

    def feed(self, record: Record) -> Bad | None:
        """Check one more record.

        Returns:
            The first bad record of this stream, if it has one by now.
        """
        return self.feed_to(record.entry.stream, record)

    def feed_to(self, stream: str, record: Record) -> Bad | None:
        """Check one more record that was found in ``stream``, whatever it says itself.

        Returns:
            The first bad record of this stream, if it has one by now.
        """
        self._entries += 1
        verifier = self._streams.get(stream)
        if verifier is None:
            keyless = record.signature == b""
            verifier = StreamVerifier(stream, None if keyless else self._key)
            self._streams[stream] = verifier
            if keyless:
                self._keyless[stream] = []
        heads = self._keyless.get(stream)
        if verifier.bad is None and heads and self._signed(record):
            # Signatures were taken away from the beginning of a signed stream.
            verifier.bad = Bad(stream, 1, "bad signature")
        bad = verifier.feed(record)
        if bad is None and heads is not None:
            heads.append(record.hash)
        elif bad is None:
            adopts = record.entry.kind == "adopt"
            self._claims.extend((claim, adopts) for claim in _claims(record.entry) if claim.number > 0)
        return bad

    def finish(self) -> LedgerReport:
        """Check what the streams say about each other and return the verdict."""
        bad = {name: verifier.bad for name, verifier in self._streams.items() if verifier.bad is not None}
        adopted = dict.fromkeys(self._keyless, 0)
        for claim, adopts in self._claims:
            if claim.stream in bad:
                continue
            found = self._broken(claim)
            if found is not None:
                bad[claim.stream] = found
            elif adopts and claim.stream in adopted:
                adopted[claim.stream] = max(adopted[claim.stream], claim.number)
        for name, number in adopted.items():
            if name not in bad and self._streams[name].number > number:
                bad[name] = Bad(name, number + 1, "not adopted")
        order = [*self._streams, *(name for name in bad if name not in self._streams)]
        return LedgerReport(
            entries=self._entries,
            streams=len(self._streams),
            bad=tuple(bad[name] for name in order if name in bad),
        )

    def _broken(self, claim: _Claim) -> Bad | None:
        """Return what contradicts ``claim`` about a stream that is in order by itself."""
        verifier = self._streams.get(claim.stream)
        reached = 0 if verifier is None else verifier.number
        if verifier is None or reached < claim.number:
            return Bad(claim.stream, reached + 1, "truncated")
        heads = self._keyless.get(claim.stream)
        if heads is not None:
            head = heads[claim.number - 1]
        elif claim.number == reached:
            head = verifier.head
        else:
            return None  # inside a signed chain: authentic like the claim itself
        return None if head.hex() == claim.head else Bad(claim.stream, claim.number, "edited")

    def _signed(self, record: Record) -> bool:
        return record.signature != b"" and equal(entry_signature(self._key, record.hash), record.signature)


def verify_ledger(streams: Mapping[str, Iterable[Record]], key: bytes) -> LedgerReport:
    """Check a set of streams that is at hand as a whole.

    Args:
        streams: the records of each stream by its UUID, in order of their numbers.
        key: the signing key of the cluster.
    """
    verifier = LedgerVerifier(key)
    for stream, records in streams.items():
        for record in records:
            verifier.feed_to(stream, record)
    return verifier.finish()


def _claims(entry: Entry) -> Iterator[_Claim]:
    """Yield what a signed entry claims; a detail of another shape claims nothing."""
    try:
        if entry.kind == "open":
            follows = msgspec.json.decode(entry.detail, type=_Open).follows
            if follows is not None:
                yield follows
        elif entry.kind == "adopt":
            yield from msgspec.json.decode(entry.detail, type=_Adopt).streams
        elif entry.kind == "lost":
            lost = msgspec.json.decode(entry.detail, type=_Lost)
            yield _Claim(lost.stream, lost.first - 1, lost.head)
    except msgspec.MsgspecError:
        return
