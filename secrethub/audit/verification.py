"""Checking a whole ledger: every stream by itself, what streams say of each other, and the checkpoints.

Checkpoints vouch for every stream up to its head at their time (:mod:`secrethub.audit.checkpoint_chain`).
Signed entries vouch for other streams too (:mod:`secrethub.audit.event`): the end of a stream cannot be
removed once a later stream follows it, and a stream that was written without a key counts only as far as
a signed entry adopted it. A keyless stream proves nothing about others.

A stream may begin later than with its first entry only where a signed ``prune`` entry says so.

What leaves no trace here: the removal of entries that no checkpoint has yet, and of the newest checkpoints
together with what they vouch for. The first is a second at most; against the second there are
witnesses outside the database (:mod:`secrethub.audit.witness`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from secrethub.audit.chain import Bad, StreamVerifier
from secrethub.audit.checkpoint_chain import CheckpointVerifier
from secrethub.audit.claims import NO_CLAIM, StreamClaims
from secrethub.audit.event import (
    FIELDS,
    GENESIS,
    Record,
    Row,
    StreamHead,
    entry_signature,
    record_from,
    row_hash,
    signature_message,
)
from secrethub.audit.stream_claims import Claim, claims_of, pruned_by
from secrethub.crypto.digests import equal
from secrethub.crypto.prepared_mac import PreparedMac

_PLAIN = frozenset({"request", "intent", "outcome", "event"})
"""Kinds of entries that say nothing of streams."""


class LedgerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a ledger.

    Attributes:
        entries: records that were read.
        streams: streams they belong to.
        checkpoints: checkpoints that were read.
        elsewhere: streams that begin after entries which were pruned and are not here.
        unproven: records that no checkpoint vouches for, because they are newer than the last one.
        bad: the first bad checkpoint, and the first bad record of every stream that is not in order: those
            that are not by themselves first, because of them others may seem so.
    """

    entries: int
    streams: int
    checkpoints: int = 0
    elsewhere: int = 0
    unproven: int = 0
    bad: tuple[Bad, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is in order."""
        return not self.bad

    @property
    def first_bad(self) -> Bad | None:
        """The first bad record."""
        return self.bad[0] if self.bad else None


class _Stream:
    """A stream while it is read.

    Attributes:
        base: where what was pruned ends, number 0 for a whole stream.
        heads: digests after ``base`` of a stream that was written without a key, else None.
        claims: what checkpoints say of it.
        next: number of the first claim that is still to be met.
    """

    __slots__ = ("base", "claims", "heads", "next", "verifier")

    def __init__(
        self, verifier: StreamVerifier, claims: StreamClaims | None, heads: list[bytes] | None
    ) -> None:
        self.verifier = verifier
        self.base = StreamHead(verifier.stream, verifier.number, verifier.head)
        self.claims = claims
        self.heads = heads
        self.next = NO_CLAIM if claims is None else claims.next_after(verifier.number)

    def met(self, record: Record) -> Bad | None:
        """Compare a record that is in order with the claim about it, if there is one."""
        if self.claims is None or record.entry.number != self.next:
            return None
        if not self.claims.allows(record.entry.number, record.hash):
            return Bad(self.verifier.stream, record.entry.number, "forked")
        self.next = self.claims.next_after(record.entry.number)
        return None


class LedgerVerifier:
    """Checks a ledger record by record: streams in any order, each in order of its numbers.

    The checkpoints come first.
    """

    __slots__ = (
        "_bases",
        "_checkpoints",
        "_claims",
        "_entries",
        "_key",
        "_mac",
        "_partial",
        "_pruned",
        "_streams",
    )

    def __init__(
        self,
        key: bytes | None,
        *,
        checkpoints: CheckpointVerifier | None = None,
        bases: Iterable[StreamHead] = (),
        elsewhere: bool = False,
    ) -> None:
        """Begin.

        Args:
            key: the signing key of the cluster; None where nobody may have it: then chains and checkpoints
                are checked, signatures of entries are not.
            checkpoints: has been fed with every checkpoint.
            bases: up to where streams were pruned, as ``prune`` entries say that are among the records.
            elsewhere: whether a stream may begin earlier than such an entry says, where something else says
                after what; it is counted.
        """
        self._key = key
        self._mac = None if key is None else PreparedMac(key)
        self._checkpoints = checkpoints
        self._bases: dict[str, dict[int, StreamHead]] = {}
        for base in bases:
            self._bases.setdefault(base.stream, {})[base.number] = base
        self._partial = elsewhere
        self._entries = 0
        self._streams: dict[str, _Stream] = {}
        self._claims: list[tuple[Claim, bool]] = []
        self._pruned: dict[str, set[StreamHead]] = {}

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
        state = self._streams.get(stream) or self._begin(stream, record)
        verifier = state.verifier
        if verifier.bad is None and state.heads and self._signed(record):
            # Signatures were taken away from the beginning of a signed stream.
            verifier.bad = Bad(stream, 1, "bad signature")
        bad = verifier.feed(record)
        if bad is None:
            bad = verifier.bad = state.met(record)
        if bad is None and state.heads is not None:
            state.heads.append(record.hash)
        elif bad is None and record.entry.kind not in _PLAIN:
            self._hear(record, state)
        return bad

    def feed_rows(self, rows: Sequence[Row]) -> None:
        """Check many records at once, each a row: what :meth:`feed` does, as fast as it goes."""
        at = 0
        while at < len(rows):
            at = self._run(rows, at)
            if at < len(rows):
                self.feed(record_from(rows[at]))
                at += 1

    def finish(self) -> LedgerReport:
        """Check what the streams and checkpoints say of streams and return the verdict."""
        bad = {
            name: state.verifier.bad
            for name, state in self._streams.items()
            if state.verifier.bad is not None
        }
        begin = {name: state.base for name, state in self._streams.items() if state.base.number}
        for name, base in begin.items():
            earlier = self._partial and base.number < self._pruned_to(name).number
            if name not in bad and base not in self._pruned.get(name, ()) and not earlier:
                bad[name] = Bad(name, 1, "gap")
        keyless = {name: state for name, state in self._streams.items() if state.heads is not None}
        adopted = {name: state.base.number for name, state in keyless.items()}
        for claim, adopts in self._claims:
            if claim.stream in bad:
                continue
            found = self._broken(claim)
            if found is not None:
                bad[claim.stream] = found
            elif adopts and claim.stream in adopted:
                adopted[claim.stream] = max(adopted[claim.stream], claim.number)
        for name, number in adopted.items():
            if name not in bad and self._streams[name].verifier.number > number:
                bad[name] = Bad(name, number + 1, "not adopted")
        chain = self._checkpoints
        claims = {} if chain is None else chain.claims
        for name, claimed in claims.items():
            reached = self._reached(name).number
            if name not in bad and reached < claimed.last.number:
                bad[name] = Bad(name, reached + 1, "truncated")
        first = () if chain is None or chain.finish() is None else (chain.bad,)
        return LedgerReport(
            entries=self._entries,
            streams=len(self._streams),
            checkpoints=0 if chain is None else chain.count,
            elsewhere=sum(name not in bad for name in begin),
            unproven=sum(
                max(0, state.verifier.number - max(_proven(state), state.base.number))
                for state in self._streams.values()
            ),
            bad=(*(one for one in first if one is not None), *bad.values()),
        )

    def _begin(self, stream: str, record: Record) -> _Stream:
        keyless = record.signature == b""
        base = StreamHead(stream, 0, GENESIS)
        bases = self._bases.get(stream)
        if bases is not None and record.entry.number != 1:
            # What is to be pruned, and was not yet, follows what was pruned before.
            base = bases.get(record.entry.number - 1) or bases[max(bases)]
        verifier = StreamVerifier(
            stream,
            None if keyless else self._key,
            base.number,
            base.head,
            keyed=not keyless and self._key is None,
        )
        claims = None if self._checkpoints is None else self._checkpoints.claims.get(stream)
        state = self._streams[stream] = _Stream(verifier, claims, [] if keyless else None)
        return state

    def _run(self, rows: Sequence[Row], at: int) -> int:
        """Go on in one stream while nothing is special; return where something is."""
        stream = rows[at][0]
        state = self._streams.get(stream)
        if (
            state is None
            or state.heads is not None
            or state.verifier.bad is not None
            or state.verifier.closed
        ):
            return at
        verifier, mac, claim = state.verifier, self._mac, state.next
        start, number, head = at, verifier.number, verifier.head
        try:
            while at < len(rows):
                row = rows[at]
                number += 1
                if row[0] != stream or row[1] != number or number == claim or row[3] not in _PLAIN:
                    break
                digest = row_hash(head, row)
                if digest != row[FIELDS] or not row[FIELDS + 1]:
                    break
                if mac is not None and not equal(mac.digest(signature_message(digest)), row[FIELDS + 1]):
                    break
                head = digest
                at += 1
        except (OverflowError, TypeError, UnicodeEncodeError):
            pass  # fields that no entry can have: whoever looks closer names them
        verifier.number += at - start
        verifier.head = head
        self._entries += at - start
        return at

    def _hear(self, record: Record, state: _Stream) -> None:
        """Take note of what a signed record that is in order says of streams."""
        entry = record.entry
        if entry.kind == "prune":
            if self._key is None and entry.number > _proven(state):
                return  # anybody may have written it
            for head in pruned_by(entry.detail):
                self._pruned.setdefault(head.stream, set()).add(head)
        else:
            adopts = entry.kind == "adopt"
            self._claims.extend((claim, adopts) for claim in claims_of(entry) if claim.number > 0)

    def _reached(self, stream: str) -> StreamHead:
        """Return how far a stream goes; one that was pruned as a whole, to where it was pruned."""
        state = self._streams.get(stream)
        if state is not None:
            return StreamHead(stream, state.verifier.number, state.verifier.head)
        return self._pruned_to(stream)

    def _pruned_to(self, stream: str) -> StreamHead:
        """Return up to where a stream was pruned, as the newest entry about it says."""
        pruned = self._pruned.get(stream, ())
        return max(pruned, key=lambda head: head.number, default=StreamHead(stream, 0, GENESIS))

    def _broken(self, claim: Claim) -> Bad | None:
        """Return what contradicts ``claim`` about a stream that is in order by itself."""
        state = self._streams.get(claim.stream)
        reached = self._reached(claim.stream)
        if reached.number < claim.number:
            return Bad(claim.stream, reached.number + 1, "truncated")
        head = reached.head
        if claim.number < reached.number:
            if state is None or state.heads is None or claim.number <= state.base.number:
                return None  # inside a signed chain, authentic like the claim itself; or pruned
            head = state.heads[claim.number - state.base.number - 1]
        return None if head.hex() == claim.head else Bad(claim.stream, claim.number, "edited")

    def _signed(self, record: Record) -> bool:
        if self._key is None:
            return record.signature != b""
        return record.signature != b"" and equal(entry_signature(self._key, record.hash), record.signature)


def _proven(state: _Stream) -> int:
    """Return the number of the last entry of a stream that a checkpoint vouches for."""
    return 0 if state.claims is None else state.claims.last.number
