"""The whole ledger: what streams prove about each other."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.audit.chain import Bad, Chain
from secrethub.audit.event import (
    GENESIS,
    Record,
    StreamHead,
    adopt_detail,
    entry_hash,
    lost_detail,
    open_detail,
)
from secrethub.audit.verification import LedgerReport, LedgerVerifier

KEY = b"k" * 32
ORIGIN = {"node": "n1", "process": "gateway", "pid": 7}


def stream(
    name: str, *details: tuple[str, str], key: bytes | None = KEY, follows: StreamHead | None = None
) -> list[Record]:
    """Return a stream that opens, holds entries of (kind, detail), and two reads."""
    chain = Chain(name, key)
    records = [chain.append(at=1, kind="open", detail=open_detail(ORIGIN, follows))]
    records += [chain.append(at=2, kind=kind, detail=detail) for kind, detail in details]  # type: ignore[arg-type]
    return records + [chain.append(at=3, kind="request", path="secret/data/x") for _ in range(2)]


def head(records: list[Record], number: int | None = None) -> StreamHead:
    """Return the place of the last entry, or of entry ``number``."""
    record = records[-1 if number is None else number - 1]
    return StreamHead(record.entry.stream, record.entry.number, record.hash)


def ledger(*streams: list[Record]) -> dict[str, list[Record]]:
    """Return the streams by name."""
    return {records[0].entry.stream: records for records in streams}


def verify_ledger(streams: Mapping[str, list[Record]]) -> LedgerReport:
    """Verify streams by their names."""
    verifier = LedgerVerifier(KEY)
    for name, records in streams.items():
        for record in records:
            verifier.feed_to(name, record)
    return verifier.finish()


def first_bad(streams: Mapping[str, list[Record]]) -> Bad | None:
    """Return the first bad record of a ledger."""
    report = verify_ledger(streams)
    assert report.ok is (report.first_bad is None)
    return report.first_bad


def rechained(records: list[Record], number: int, outcome: str) -> list[Record]:
    """Return a keyless stream with one entry edited and every hash from there on computed anew."""
    previous, result = GENESIS, []
    for record in records:
        entry = record.entry
        if entry.number == number:
            entry = msgspec.structs.replace(entry, outcome=outcome)
        previous = entry_hash(previous, entry)
        result.append(Record(entry, previous, b""))
    return result


def test_a_ledger_in_order() -> None:
    """Streams that follow and adopt each other rightly are in order, and everything is counted."""
    old, sealed = stream("old"), stream("sealed", key=None)
    new = stream("new", ("adopt", adopt_detail([head(sealed)])), follows=head(old))
    report = verify_ledger(ledger(old, sealed, new))
    assert (report.ok, report.entries, report.streams, report.bad) == (True, 10, 3, ())
    assert verify_ledger({}).ok


def test_every_bad_stream_is_named() -> None:
    """Each stream that is not in order is reported with its own first bad record."""
    one, two, three = stream("one"), stream("two"), stream("three")
    report = verify_ledger({"one": one[1:], "two": two, "three": [*three[:1], three[2]]})
    assert report.bad == (Bad("one", 1, "gap"), Bad("three", 2, "gap"))
    assert report.first_bad == Bad("one", 1, "gap")


def test_streams_may_be_read_interleaved() -> None:
    """The order among streams does not matter."""
    old = stream("old")
    new = stream("new", follows=head(old))
    verifier = LedgerVerifier(KEY)
    for pair in zip(new, old, strict=True):
        for record in pair:
            assert verifier.feed(record) is None
    assert verifier.finish().ok


def test_a_record_put_into_another_stream_is_named() -> None:
    """A record counts for the stream in which it was found."""
    one, two = stream("one"), stream("two")
    assert first_bad({"one": [*one, two[0]], "two": two}) == Bad("one", 1, "inserted")


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_removed_tail_is_found_by_the_stream_that_follows(left: int) -> None:
    """Once a stream follows another, the end of that other one cannot be removed unseen."""
    old = stream("old")
    new = stream("new", follows=head(old))
    tampered = {"new": new, "old": old[:left]} if left else {"new": new}
    assert first_bad(tampered) == Bad("old", left + 1, "truncated")
    assert first_bad(ledger(old, new)) is None


def test_a_removed_tail_before_a_close_is_a_gap() -> None:
    """A closing entry that stayed shows what was removed before it."""
    chain = Chain("s", KEY)
    records = [chain.append(at=1, kind="open"), *(chain.append(at=2, kind="request") for _ in range(3))]
    records.append(chain.append(at=3, kind="close"))
    assert first_bad({"s": [*records[:2], records[-1]]}) == Bad("s", 3, "gap")


def test_what_came_after_the_claim_is_no_contradiction() -> None:
    """A stream may be longer than what another one says of it."""
    old = stream("old")
    assert first_bad(ledger(old, stream("new", follows=head(old, 2)))) is None


def test_a_claim_names_the_digest_too() -> None:
    """A stream that ends at the claimed number with another digest is not the one that was meant."""
    old = stream("old")
    elsewhere = stream("new", follows=StreamHead("old", 3, b"x" * 32))
    assert first_bad(ledger(old, elsewhere)) == Bad("old", 3, "edited")


def test_lost_entries() -> None:
    """A lost range vouches for what was before it; the range itself may exist or not."""
    old = stream("old")
    lost = lost_detail(head(old, 2), 3)
    new = stream("new", ("lost", lost))
    assert first_bad(ledger(old, new)) is None
    assert first_bad(ledger(old[:2], new)) is None
    assert first_bad(ledger(old[:1], new)) == Bad("old", 2, "truncated")
    never = stream("new", ("lost", lost_detail(StreamHead("never", 0, GENESIS), 4)))
    assert first_bad(ledger(never)) is None


def test_a_keyless_stream_needs_to_be_adopted() -> None:
    """Without an adopting entry a keyless stream is reported, and beyond the adopted entry too."""
    sealed = stream("sealed", key=None)
    assert first_bad(ledger(sealed)) == Bad("sealed", 1, "not adopted")
    partly = stream("new", ("adopt", adopt_detail([head(sealed, 2)])))
    assert first_bad(ledger(sealed, partly)) == Bad("sealed", 3, "not adopted")
    twice = stream("later", ("adopt", adopt_detail([head(sealed)])))
    assert first_bad(ledger(sealed, partly, twice)) is None
    assert first_bad(ledger(twice, sealed, partly)) is None
    itself = Chain("sealed", None)
    alone = [itself.append(at=1, kind="open")]
    alone.append(itself.append(at=2, kind="adopt", detail=adopt_detail([head(alone)])))
    assert first_bad({"sealed": alone}) == Bad("sealed", 1, "not adopted")


def test_an_adopted_stream_cannot_be_changed() -> None:
    """After adoption a keyless stream can be neither shortened, rewritten nor removed."""
    sealed = stream("sealed", key=None)
    new = stream("new", ("adopt", adopt_detail([head(sealed)])))
    assert first_bad(ledger(sealed[:2], new)) == Bad("sealed", 3, "truncated")
    assert first_bad(ledger(new)) == Bad("sealed", 1, "truncated")
    assert first_bad(ledger(rechained(sealed, 2, "x"), new)) == Bad("sealed", 3, "edited")
    early = stream("early", ("adopt", adopt_detail([head(sealed, 2)])))
    assert first_bad(ledger(rechained(sealed, 2, "x"), early, new)) == Bad("sealed", 2, "edited")


def test_signatures_taken_away_are_found() -> None:
    """A signed stream does not become a keyless one by losing signatures."""
    records = stream("s")
    stripped = [Record(record.entry, record.hash, b"") for record in records]
    assert first_bad({"s": stripped}) == Bad("s", 1, "not adopted")
    assert first_bad({"s": [*stripped[:2], records[2]]}) == Bad("s", 1, "bad signature")
    assert first_bad({"s": [records[0], *stripped[1:]]}) == Bad("s", 2, "bad signature")
    keyless = stream("k", key=None)
    signed = [*keyless[:2], Record(keyless[2].entry, keyless[2].hash, b"x" * 32)]
    adopting = stream("new", ("adopt", adopt_detail([head(keyless)])))
    assert first_bad(ledger(signed, adopting)) == Bad("k", 3, "bad signature")


def test_keyless_streams_prove_nothing_about_others() -> None:
    """Claims count only if they are signed."""
    old = stream("old")
    forged = stream("forged", ("adopt", adopt_detail([StreamHead("old", 9, b"x" * 32)])), key=None)
    report = verify_ledger(ledger(old, forged))
    assert report.bad == (Bad("forged", 1, "not adopted"),)


def test_details_of_other_shapes_claim_nothing() -> None:
    """A detail that is no claim is passed over."""
    odd = stream(
        "s", ("adopt", "{}"), ("lost", "[]"), ("open", '{"follows":{"stream":1}}'), ("adopt", "nonsense")
    )
    assert first_bad({"s": odd}) is None


@given(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3))
def test_any_removed_tail_among_linked_streams_is_found(
    cut_old: int, cut_sealed: int, old_claim: int, sealed_claim: int
) -> None:
    """A ledger is in order exactly if every stream reaches what the others say of it."""
    old, sealed = stream("old"), stream("sealed", key=None)
    new = stream("new", ("adopt", adopt_detail([head(sealed, sealed_claim)])), follows=head(old, old_claim))
    report = verify_ledger({"old": old[: 3 - cut_old], "sealed": sealed[: 3 - cut_sealed], "new": new})
    assert report.ok is (old_claim <= 3 - cut_old and sealed_claim == 3 - cut_sealed)
