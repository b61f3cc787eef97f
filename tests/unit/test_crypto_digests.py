"""Canonical encoding, digests, MACs and derived keys."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secrethub.crypto.digests import canonical, derive, equal, mac, sha256

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "formats.json").read_text("utf-8"))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**63), max_value=2**64 - 1),
    st.binary(max_size=300),
    st.text(max_size=80),
)
parts = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


def untagged(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    return [untagged(item) for item in value] if isinstance(value, list) else value


def shape(value: Any) -> Any:
    """Return ``value`` so that ``==`` tells types apart, which Python's own does not."""
    return [shape(item) for item in value] if isinstance(value, list) else (type(value), value)


class Colour(enum.StrEnum):
    """A str that is more than a str."""

    RED = "red"


@pytest.mark.parametrize("vector", VECTORS["digests"])
def test_encoding_digest_and_mac_match_the_vectors(vector: dict[str, Any]) -> None:
    """The stored formats are those of an encoder written from the description alone."""
    given_parts = untagged(vector["parts"])
    assert canonical(*given_parts).hex() == vector["canonical"]
    assert sha256("vectors/v1", *given_parts).hex() == vector["sha256"]
    assert mac(bytes.fromhex(vector["mac_key"]), "vectors/v1", *given_parts).hex() == vector["mac"]


@settings(deadline=None)
@given(st.lists(parts, max_size=6))
def test_canonical_can_be_read_back(values: list[Any]) -> None:
    """Every encoding decodes to the parts it was made of, so no two lists of parts share one."""
    assert shape(msgspec.msgpack.decode(canonical(*values))) == shape(values)


@settings(deadline=None)
@given(st.lists(parts, max_size=4), st.lists(parts, max_size=4))
def test_different_parts_have_different_encodings(one: list[Any], other: list[Any]) -> None:
    """Two lists of parts have the same encoding exactly when they are the same, types included."""
    assert (canonical(*one) == canonical(*other)) == (shape(one) == shape(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a",), (b"a",)),
        ((1,), (True,)),
        ((0,), (False,)),
        ((None,), ("",)),
        ((None,), ()),
        (("a", "b"), (("a", "b"),)),
        (((), ()), ((),)),
        ((["a"], "b"), (["a", "b"],)),
        ((1,), ("1",)),
        ((-1,), (255,)),
    ],
)
def test_look_alikes_differ(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """Moving a border, a type or a nesting gives another encoding, digest and MAC."""
    assert canonical(*one) != canonical(*other)
    assert sha256("d", *one) != sha256("d", *other)
    assert mac(bytes(32), "d", *one) != mac(bytes(32), "d", *other)


def test_lists_and_tuples_are_one_sequence() -> None:
    """A sequence encodes the same whether it is a list or a tuple."""
    assert canonical(["a", [1]]) == canonical(("a", (1,)))


@pytest.mark.parametrize(
    "value",
    [1.0, {"a": 1}, {1}, bytearray(b"a"), memoryview(b"a"), Colour.RED, object(), [[1.5]], ("a", Colour.RED)],
)
def test_other_types_are_refused(value: Any) -> None:
    """What is not of exactly the allowed types has no encoding, at any depth."""
    with pytest.raises(TypeError):
        canonical("a", value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_integers_beyond_64_bits_are_refused(value: int) -> None:
    """An integer that does not fit is refused instead of cut."""
    with pytest.raises(OverflowError):
        canonical(value)


def test_text_that_is_no_unicode_is_refused() -> None:
    """A lone surrogate is refused instead of replaced, so no two texts fall together."""
    with pytest.raises(UnicodeEncodeError):
        canonical("a\udcff")


def test_the_domain_separates() -> None:
    """The same parts in another domain, or moved into the domain, give another digest."""
    assert sha256("a", "b") != sha256("b", "b")
    assert sha256("ab") != sha256("a", "b")
    assert mac(bytes(32), "a", "b") != mac(bytes(32), "b", "b")


def test_the_key_matters() -> None:
    """Another key gives another MAC."""
    assert mac(bytes(32), "d", "a") != mac(b"\x01" * 32, "d", "a")


def test_equal_compares_contents() -> None:
    """Equal means the same bytes, and other lengths are simply unequal."""
    assert equal(b"abc", b"abc")
    assert not equal(b"abc", b"abd")
    assert not equal(b"abc", b"abcd")


def test_labels_and_lengths_give_independent_keys() -> None:
    """Another label, key or length derives an unrelated key of the wanted length."""
    key = bytes(range(32))
    derived = [derive(key, "a"), derive(key, "b"), derive(bytes(32), "a"), derive(key, "a", 64)[:32]]
    assert len(set(derived)) == len(derived)
    assert [len(derive(key, "a", length)) for length in (1, 32, 64)] == [1, 32, 64]
