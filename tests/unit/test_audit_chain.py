"""One stream of the ledger: every kind of tampering is found at its first record."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.audit.chain import MAX_TEXT, Bad, Chain, StreamVerifier, Verified
from secrethub.audit.event import GENESIS, Entry, Record, entry_hash, entry_signature

KEY = b"k" * 32
FIELDS = tuple(Entry.__struct_fields__)


def written(length: int, key: bytes | None = KEY, stream: str = "s") -> list[Record]:
    """Return a stream of ``length`` entries."""
    chain = Chain(stream, key)
    return [
        chain.append(
            at=1_700_000_000_000_000 + number,
            kind="open" if number == 0 else "request",
            request_id=f"r{number}",
            actor="token app",
            operation="kv.read",
            path="secret/data/prod/db",
            outcome="ok",
            client="10.0.0.1",
            door="tls",
            detail='{"version":3}',
        )
        for number in range(length)
    ]


def verify_stream(records: Sequence[Record], key: bytes | None) -> Verified | Bad:
    """Verify a whole stream ``s``."""
    verifier = StreamVerifier("s", key)
    for record in records:
        verifier.feed(record)
    return verifier.finish()


def edited(record: Record, **changes: Any) -> Record:
    """Return a record with some fields of its entry changed, hash and signature as they were."""
    return Record(msgspec.structs.replace(record.entry, **changes), record.hash, record.signature)


@pytest.mark.parametrize("key", [KEY, None])
def test_a_stream_as_written_is_in_order(key: bytes | None) -> None:
    """What a chain wrote verifies up to its head, from the beginning and from any place."""
    records = written(5, key)
    assert [record.entry.number for record in records] == [1, 2, 3, 4, 5]
    assert verify_stream(records, key) == Verified(5, records[-1].hash)
    assert verify_stream([], key) == Verified(0, GENESIS)
    later = StreamVerifier("s", key, number=2, head=records[1].hash)
    assert [later.feed(record) for record in records[2:]] == [None] * 3
    assert later.finish() == Verified(5, records[-1].hash)


def test_a_chain_goes_on_where_it_was() -> None:
    """A chain continued from its number and head writes what the first one would have written."""
    records = written(3)
    chain = Chain("s", KEY, number=2, head=records[1].hash)
    again = chain.append(
        **{name: getattr(records[2].entry, name) for name in FIELDS if name not in {"stream", "number"}}
    )
    assert again == records[2]
    assert (chain.number, chain.head) == (3, records[2].hash)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("key", [KEY, None])
def test_an_edited_field_is_found(field: str, key: bytes | None) -> None:
    """A change of any field is found at that record."""
    records = written(4, key)
    value = getattr(records[2].entry, field)
    changed = edited(records[2], **{field: value + 7 if isinstance(value, int) else value + "x"})
    found = verify_stream([*records[:2], changed, records[3]], key)
    reasons = {"stream": "inserted", "number": "gap"}
    assert found == Bad("s", 3, reasons.get(field, "edited"))  # type: ignore[arg-type]


def test_text_moved_between_fields_is_found() -> None:
    """The same characters divided differently among the fields are another entry."""
    entry = written(1)[0].entry
    fields = [name for name in FIELDS if isinstance(getattr(entry, name), str)]
    for left, right in pairwise(fields):
        one = msgspec.structs.replace(entry, **{left: "ab", right: "c"})
        two = msgspec.structs.replace(entry, **{left: "a", right: "bc"})
        assert entry_hash(GENESIS, one) != entry_hash(GENESIS, two)


def test_an_edited_hash_or_signature_is_found() -> None:
    """Hash and signature are checked for themselves."""
    records = written(4)
    third = records[2]
    for bad, reason in [
        (Record(third.entry, bytes(32), third.signature), "edited"),
        (Record(third.entry, b"", third.signature), "edited"),
        (Record(third.entry, third.hash, bytes(32)), "bad signature"),
        (Record(third.entry, third.hash, b""), "bad signature"),
        (Record(third.entry, third.hash, records[1].signature), "bad signature"),
    ]:
        found = verify_stream([*records[:2], bad, records[3]], KEY)
        assert found == Bad("s", 3, reason)  # type: ignore[arg-type]


def test_a_chain_computed_anew_without_the_key_is_found() -> None:
    """Whoever edits an entry and recomputes all hashes after it still lacks the signatures."""
    records = written(4)
    forged = records[:1]
    for record in records[1:]:
        entry = msgspec.structs.replace(record.entry, actor="nobody")
        digest = entry_hash(forged[-1].hash, entry)
        forged.append(Record(entry, digest, entry_signature(b"x" * 32, digest)))
    assert verify_stream(forged, KEY) == Bad("s", 2, "bad signature")
    assert verify_stream([*forged[:1], *(Record(r.entry, r.hash, b"") for r in forged[1:])], KEY) == Bad(
        "s", 2, "bad signature"
    )


def test_a_deleted_record_is_found() -> None:
    """A missing record is named, at the beginning and in the middle."""
    records = written(5)
    assert verify_stream(records[2:], KEY) == Bad("s", 1, "gap")
    assert verify_stream([*records[:2], *records[3:]], KEY) == Bad("s", 3, "gap")
    assert verify_stream([*records[:2], *records[4:]], KEY) == Bad("s", 3, "gap")


def test_records_closed_up_after_a_deletion_are_found() -> None:
    """Numbers changed to hide a deletion, or swapped, break the chain there."""
    records = written(5)
    closed = [*records[:2], edited(records[3], number=3), edited(records[4], number=4)]
    assert verify_stream(closed, KEY) == Bad("s", 3, "edited")
    swapped = [*records[:2], edited(records[3], number=3), edited(records[2], number=4), records[4]]
    assert verify_stream(swapped, KEY) == Bad("s", 3, "edited")


def test_reordered_records_are_found() -> None:
    """A record that comes later than its number says is named as reordered."""
    first, second, third, fourth = written(4)
    assert verify_stream([first, third, second, fourth], KEY) == Bad("s", 2, "reordered")
    assert verify_stream([second, third, fourth, first], KEY) == Bad("s", 1, "reordered")


def test_inserted_and_repeated_records_are_found() -> None:
    """A second record with a number, and one of another stream, are named."""
    records = written(3)
    other = written(3, stream="t")
    assert verify_stream([*records[:2], records[1], records[2]], KEY) == Bad("s", 2, "duplicate")
    assert verify_stream([*records[:2], edited(records[1], actor="x"), records[2]], KEY) == Bad(
        "s", 2, "duplicate"
    )
    assert verify_stream([*records[:2], other[2]], KEY) == Bad("s", 3, "inserted")
    assert verify_stream(other, KEY) == Bad("s", 1, "inserted")


def test_a_wrong_genesis_is_found() -> None:
    """A first record that does not follow from the beginning of all streams is named."""
    chain = Chain("s", KEY, head=b"x" * 32)
    assert verify_stream([chain.append(at=1, kind="open")], KEY) == Bad("s", 1, "wrong genesis")


def test_nothing_follows_a_close() -> None:
    """An entry after the closing one does not belong there, even if it is signed."""
    chain = Chain("s", KEY)
    records = [chain.append(at=1, kind="open"), chain.append(at=2, kind="close")]
    assert verify_stream(records, KEY) == Verified(2, chain.head)
    assert verify_stream([*records, chain.append(at=3, kind="event")], KEY) == Bad("s", 3, "inserted")


def test_keyed_and_keyless_do_not_mix() -> None:
    """Under a key every entry is signed, without one none is."""
    assert verify_stream(written(2, None), KEY) == Bad("s", 1, "bad signature")
    assert verify_stream(written(2), None) == Bad("s", 1, "bad signature")


def test_values_that_no_entry_can_have_are_edits() -> None:
    """Rows with impossible values are bad records, not errors."""
    records = written(2)
    for changes in ({"at": 1 << 70}, {"actor": "\ud800"}, {"at": None}):
        assert verify_stream([records[0], edited(records[1], **changes)], KEY) == Bad("s", 2, "edited")


@given(st.data())
def test_any_single_change_is_found_where_it_is(data: st.DataObject) -> None:
    """However one record is changed, dropped, moved or doubled, the first wrong place is named."""
    records = written(data.draw(st.integers(2, 8)))
    at = data.draw(st.integers(0, len(records) - 1))
    tampered = list(records)
    match data.draw(st.sampled_from(["edit", "drop", "double", "move"])):
        case "edit":
            tampered[at] = edited(records[at], outcome=data.draw(st.text().filter(lambda text: text != "ok")))
            first = at
        case "drop":
            del tampered[at]
            first = at
        case "double":
            tampered.insert(at + 1, records[at])
            first = at
        case _:
            to = data.draw(st.integers(0, len(records) - 1).filter(lambda to: to != at))
            tampered.insert(to, tampered.pop(at))
            first = min(at, to)
    found = verify_stream(tampered, KEY)
    if at == len(records) - 1 and tampered == records[:-1]:
        assert found == Verified(at, records[at - 1].hash)
    else:
        assert isinstance(found, Bad)
        assert found.number == first + 1


@given(
    st.text(max_size=40),
    st.sampled_from(["actor", "operation", "path", "outcome", "reason", "client", "door", "detail"]),
)
def test_no_name_forges_a_line(text: str, field: str) -> None:
    """Whatever a name holds, the entry has one printable line of bounded length that can be stored."""
    record = Chain("s", KEY).append(at=1, kind="event", **{field: text})  # type: ignore[arg-type]
    stored = getattr(record.entry, field)
    assert stored.isprintable()
    assert stored.encode().decode() == stored
    assert stored == text or not text.isprintable()
    assert verify_stream([record], KEY) == Verified(1, record.hash)


def test_hostile_names_are_escaped_and_cut() -> None:
    """Line feeds, terminal and bidirectional controls are escaped, and endless names cut."""
    chain = Chain("s", KEY)
    record = chain.append(at=1, kind="event", actor="a\nb\x1b[2J\u202e\ud800", path="p" * 100_000)
    assert record.entry.actor == "a\\nb\\x1b[2J\\u202e\\ud800"
    assert len(record.entry.path) == MAX_TEXT + 1


def test_a_chain_hides_its_key() -> None:
    """The signing key is neither shown nor pickled."""
    chain = Chain("s", b"canary-key")
    assert "canary" not in repr(chain)
    with pytest.raises(TypeError):
        pickle.dumps(chain)
