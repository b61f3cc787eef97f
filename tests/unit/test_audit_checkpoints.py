"""Checkpoints: their chain, and what they prove about streams that somebody with the ledger's key forged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from secrethub.audit.chain import Bad, Chain
from secrethub.audit.checkpoint import BEFORE_FIRST, Checkpoint, Signed, StreamTree, link, sign
from secrethub.audit.checkpoint_base import SignedBase, sign_base
from secrethub.audit.checkpoint_chain import CHECKPOINTS, STRIDE, CheckpointVerifier
from secrethub.audit.event import Record, StreamHead, prune_detail
from secrethub.audit.verification import LedgerReport, LedgerVerifier

KEY = b"k" * 32
SIGNING = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
PUBLIC = SIGNING.public_key().public_bytes_raw()


class Scribe:
    """Writes streams and checkpoints as Core does."""

    def __init__(self, cluster: str = "c") -> None:
        self.cluster = cluster
        self.chains: dict[str, Chain] = {}
        self.records: dict[str, list[Record]] = {}
        self.checkpoints: list[Signed] = []
        self.tree = StreamTree()

    def write(self, stream: str, count: int = 1, **fields: Any) -> None:
        chain = self.chains.setdefault(stream, Chain(stream, KEY))
        for _ in range(count):
            fresh = chain.number == 0
            kind = fields.get("kind", "open" if fresh else "request")
            record = chain.append(at=chain.number, **{**fields, "kind": kind})
            self.records.setdefault(stream, []).append(record)

    def checkpoint(self, key: Ed25519PrivateKey = SIGNING) -> None:
        heads = tuple(
            StreamHead(name, chain.number, chain.head)
            for name, chain in sorted(self.chains.items())
            if self.tree.get(name) != StreamHead(name, chain.number, chain.head)
        )
        self.tree.move(heads)
        made = Checkpoint(
            cluster=self.cluster,
            timeline=1,
            sequence=len(self.checkpoints) + 1,
            epoch=1,
            at=len(self.checkpoints),
            previous=link(self.checkpoints[-1]) if self.checkpoints else BEFORE_FIRST,
            streams=len(self.tree),
            root=self.tree.root(),
            heads=heads,
        )
        self.checkpoints.append(sign(key, made))

    def report(self, *, key: bytes | None = KEY, bases: Sequence[StreamHead] = ()) -> LedgerReport:
        chain = CheckpointVerifier(self.cluster, PUBLIC)
        for signed in self.checkpoints:
            chain.feed(signed)
        verifier = LedgerVerifier(key, checkpoints=chain, bases=bases)
        slow = LedgerVerifier(key, checkpoints=_fed(self), bases=bases)
        for _, records in sorted(self.records.items()):
            verifier.feed_rows([_row(record) for record in records])
            for record in records:
                slow.feed(record)
        report = verifier.finish()
        assert report == slow.finish()
        return report

    def first_bad(self, **options: Any) -> Bad | None:
        return self.report(**options).first_bad

    def head(self, stream: str, number: int) -> StreamHead:
        return StreamHead(stream, number, self.records[stream][number - 1].hash)


def _fed(scribe: Scribe) -> CheckpointVerifier:
    chain = CheckpointVerifier(scribe.cluster, PUBLIC)
    for signed in scribe.checkpoints:
        chain.feed(signed)
    return chain


def _row(record: Record) -> tuple[Any, ...]:
    return (*msgspec.structs.astuple(record.entry), record.hash, record.signature)


@pytest.fixture
def scribe() -> Scribe:
    """Two streams, five checkpoints."""
    made = Scribe()
    for _ in range(5):
        made.write("a", 2)
        made.write("b", 3)
        made.checkpoint()
    return made


def test_as_written(scribe: Scribe) -> None:
    """What was written verifies, with and without the ledger's key, and nothing is unproven."""
    for key in (KEY, None):
        report = scribe.report(key=key)
        assert report.ok
        assert (report.entries, report.streams, report.checkpoints, report.unproven) == (25, 2, 5, 0)
    scribe.write("a", 2)
    scribe.write("c")
    assert scribe.report(key=None).unproven == 3


def test_a_removed_tail(scribe: Scribe) -> None:
    """Entries that a checkpoint has cannot be cut off, nor can a whole stream."""
    del scribe.records["a"][7:]
    assert scribe.first_bad() == Bad("a", 8, "truncated")
    del scribe.records["a"]
    assert scribe.first_bad() == Bad("a", 1, "truncated")


@pytest.mark.parametrize("number", [1, 5, 9, 12, 15])
def test_a_stream_forged_with_the_key(scribe: Scribe, number: int) -> None:
    """Who has the ledger's key and rewrites entries is found where the next checkpoint was."""
    forged = Chain("b", KEY)
    scribe.records["b"] = [
        forged.append(
            at=one.entry.at, kind=one.entry.kind, path="forged" if one.entry.number == number else ""
        )
        for one in scribe.records["b"]
    ]
    assert scribe.first_bad() == Bad("b", -(-number // 3) * 3, "forked")


_Change = Callable[[Signed], Signed]


def _changed(**fields: Any) -> _Change:
    return lambda signed: Signed(msgspec.structs.replace(signed.checkpoint, **fields), signed.signature)


@pytest.mark.parametrize(
    "change",
    [
        _changed(at=99),
        _changed(root=b"r" * 32),
        _changed(heads=()),
        _changed(heads=(StreamHead("a", -1, b"x" * 32),)),
        _changed(streams=1),
        _changed(timeline=0),
        _changed(epoch=7),
        _changed(previous=b"p" * 32),
        _changed(cluster="other"),
        lambda signed: Signed(signed.checkpoint, b"x" * 64),
        lambda signed: sign(OTHER, signed.checkpoint),
    ],
)
@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_replaced_checkpoint(scribe: Scribe, change: _Change, number: int) -> None:
    """A checkpoint that is not what the notary signed is named, whatever was changed in it."""
    scribe.checkpoints[number - 1] = change(scribe.checkpoints[number - 1])
    assert scribe.first_bad() == Bad(CHECKPOINTS, number, "bad signature")


def test_checkpoints_forged_to_the_end() -> None:
    """A chain that goes on rightly under another key is found at its first checkpoint."""
    scribe = Scribe()
    for number in range(STRIDE + 20):
        scribe.write("a")
        scribe.checkpoint(SIGNING if number < STRIDE + 3 else OTHER)
    assert scribe.first_bad() == Bad(CHECKPOINTS, STRIDE + 4, "bad signature")


def test_missing_and_moved_checkpoints(scribe: Scribe) -> None:
    """A removed checkpoint is a gap, one that is there twice a duplicate."""
    whole = list(scribe.checkpoints)
    del scribe.checkpoints[2]
    assert scribe.first_bad() == Bad(CHECKPOINTS, 3, "gap")
    scribe.checkpoints = [*whole[:3], whole[2], *whole[3:]]
    assert scribe.first_bad() == Bad(CHECKPOINTS, 4, "duplicate")


def test_a_fork_signed_by_the_notary(scribe: Scribe) -> None:
    """A checkpoint of another history is no successor, although the notary signed it."""
    other = Scribe()
    for _ in range(5):
        other.write("a", 2)
        other.checkpoint()
    scribe.checkpoints[3:] = other.checkpoints[3:]
    assert scribe.first_bad() == Bad(CHECKPOINTS, 4, "forked")


def test_a_later_part_of_the_chain(scribe: Scribe) -> None:
    """Checkpoints that begin later do not tell of streams that ended before: the missing ones are a gap."""
    del scribe.checkpoints[:3]
    assert scribe.first_bad() == Bad("checkpoints", 1, "gap")


def test_a_pruned_stream(scribe: Scribe) -> None:
    """A stream may begin later where a signed entry says so, exactly there, and may be gone as a whole."""
    bases = [scribe.head("a", 4), scribe.head("b", 15)]
    scribe.write("c")
    scribe.write("c", kind="prune", detail=prune_detail(bases, {}))
    scribe.checkpoint()
    whole = dict(scribe.records)
    scribe.records = {"a": whole["a"][4:], "c": whole["c"]}
    assert scribe.first_bad(bases=bases) is None
    assert scribe.first_bad(bases=bases, key=None) is None
    scribe.records = whole
    assert scribe.first_bad(bases=bases) is None
    scribe.records = {**whole, "a": whole["a"][2:]}
    assert scribe.first_bad(bases=bases) == Bad("a", 3, "duplicate")
    scribe.records = {**scribe.records, "a": whole["a"][5:]}
    assert scribe.first_bad(bases=bases) == Bad("a", 5, "gap")
    scribe.records = {"a": whole["a"][4:], "b": whole["b"], "c": whole["c"][:1]}
    assert scribe.first_bad(bases=bases) == Bad("a", 1, "gap")
    assert scribe.first_bad() == Bad("a", 1, "gap")


def test_what_was_put_where_something_was_pruned(scribe: Scribe) -> None:
    """Records with numbers that were pruned are looked at as all others are."""
    base = scribe.head("a", 4)
    scribe.write("c")
    scribe.write("c", kind="prune", detail=prune_detail([base], {}))
    scribe.checkpoint()
    forged = scribe.records["a"][1]
    forged = Record(msgspec.structs.replace(forged.entry, actor="x"), forged.hash, forged.signature)
    rest = scribe.records["a"][4:]
    for key in (KEY, None):
        scribe.records["a"] = [forged, *rest]
        assert scribe.first_bad(bases=[base], key=key) == Bad("a", 2, "duplicate")
        scribe.records["a"] = [forged]
        assert scribe.first_bad(bases=[base], key=key) == Bad("a", 2, "duplicate")


def test_a_pruning_that_was_made_up(scribe: Scribe) -> None:
    """An entry without a valid signature prunes nothing."""
    base = scribe.head("a", 4)
    forger = Chain("c", b"x" * 32)
    scribe.records["c"] = [
        forger.append(at=1, kind="open"),
        forger.append(at=2, kind="prune", detail=prune_detail([base], {})),
    ]
    del scribe.records["a"][:4]
    report = scribe.report(bases=[base])
    assert report.bad == (Bad("c", 1, "bad signature"), Bad("a", 1, "gap"))


@given(st.data())
def test_any_change_of_any_row_is_found(data: st.DataObject) -> None:
    """However one row is edited, removed, doubled or swapped, verification names a record at or before it."""
    scribe = Scribe()
    for _ in range(3):
        scribe.write("a", 2)
        scribe.checkpoint()
    rows = scribe.records["a"]
    at = data.draw(st.integers(0, 5))
    how = data.draw(st.sampled_from(["edit", "remove", "double", "swap"]))
    if how == "edit":
        entry = msgspec.structs.replace(rows[at].entry, path="x")
        rows[at] = Record(entry, rows[at].hash, rows[at].signature)
    elif how == "remove":
        del rows[at]
    elif how == "double":
        rows.insert(at, rows[at])
    else:
        other = (at + 1) % 6
        rows[at], rows[other] = rows[other], rows[at]
    bad = scribe.first_bad()
    assert bad is not None
    assert bad.stream == "a"
    assert bad.number <= at + 2


def _begun(scribe: Scribe, number: int, key: Ed25519PrivateKey) -> SignedBase:
    """What stands for the first ``number`` checkpoints."""
    chain = CheckpointVerifier(scribe.cluster, PUBLIC)
    for signed in scribe.checkpoints[:number]:
        chain.feed(signed)
    assert chain.last is not None
    assert chain.tree is not None
    return sign_base(key, chain.last, chain.tree)


def _after(scribe: Scribe, base: SignedBase, first: int) -> LedgerReport:
    """Verify with the checkpoints from ``first`` (0 for the first) on, after a base."""
    chain = CheckpointVerifier(scribe.cluster, PUBLIC)
    chain.begin(base)
    for signed in scribe.checkpoints[first:]:
        chain.feed(signed)
    verifier = LedgerVerifier(KEY, checkpoints=chain)
    for records in scribe.records.values():
        for record in records:
            verifier.feed(record)
    return verifier.finish()


def test_a_base_stands_for_what_was_before(scribe: Scribe) -> None:
    """With a base everything verifies and is proven, entries from before it included."""
    base = _begun(scribe, 3, SIGNING)
    report = _after(scribe, base, 3)
    assert report.ok
    assert (report.checkpoints, report.unproven) == (2, 0)
    forged = scribe.records["a"][2]
    scribe.records["a"][2] = Record(
        msgspec.structs.replace(forged.entry, actor="x"), forged.hash, forged.signature
    )
    assert _after(scribe, base, 3).first_bad == Bad("a", 3, "edited")
    del scribe.records["b"]
    assert Bad("b", 1, "truncated") in _after(scribe, base, 3).bad


def test_a_base_that_does_not_fit(scribe: Scribe) -> None:
    """A base that somebody else has signed, of another cluster, edited, or of another number is found out."""
    base = _begun(scribe, 3, SIGNING)
    other = _begun(scribe, 3, OTHER)
    edited = SignedBase(msgspec.structs.replace(base.base, heads=base.base.heads[:1]), base.signature)
    for wrong in (other, edited):
        assert _after(scribe, wrong, 3).first_bad == Bad("checkpoints", 3, "bad signature")
    assert _after(scribe, base, 4).first_bad == Bad("checkpoints", 4, "gap")
    assert _after(scribe, base, 2).first_bad == Bad("checkpoints", 4, "duplicate")
    foreign = Scribe()
    foreign.cluster, foreign.checkpoints, foreign.records = "other", scribe.checkpoints, scribe.records
    assert _after(foreign, base, 3).first_bad == Bad("checkpoints", 3, "inserted")
    chain = CheckpointVerifier(scribe.cluster, PUBLIC)
    chain.feed(scribe.checkpoints[0])
    assert chain.begin(base) == Bad("checkpoints", 3, "duplicate")
