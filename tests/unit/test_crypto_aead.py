"""Sealed values: versioned, and bound to their place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from secrethub.crypto.aead import Place, key_number, open_sealed, seal
from secrethub.errors import DecryptionFailed

KEY = bytes(range(32))
PLACE = Place(table="kv_versions", column="data", row="secret/prod/db", version=3)


@settings(deadline=None)
@given(st.binary(max_size=500), st.integers(0, 2**32 - 1))
def test_what_was_sealed_opens(plaintext: bytes, number: int) -> None:
    """A sealed value opens at its place, tells its key number, and has the length of its layout."""
    sealed = seal(KEY, number, plaintext, PLACE)
    assert open_sealed(KEY, sealed, PLACE) == plaintext
    assert key_number(sealed) == number
    assert len(sealed) == 1 + 4 + 12 + len(plaintext) + 16


@pytest.mark.parametrize(
    "place",
    [
        replace(PLACE, table="kv_version"),
        replace(PLACE, column="metadata"),
        replace(PLACE, row="secret/prod/db2"),
        replace(PLACE, version=4),
        Place(table="kv_versionsdata", column="", row="secret/prod/db", version=3),
    ],
)
def test_another_place_does_not_open(place: Place) -> None:
    """A value copied to another table, column, row or version does not open there."""
    with pytest.raises(DecryptionFailed):
        open_sealed(KEY, seal(KEY, 1, b"canary", PLACE), place)


@settings(deadline=None)
@given(st.data())
def test_any_changed_bit_is_noticed(data: st.DataObject) -> None:
    """Every bit of a sealed value counts: format, key number, nonce, ciphertext and tag."""
    sealed = bytearray(seal(KEY, 1, b"canary", PLACE))
    position = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[position // 8] ^= 1 << position % 8
    with pytest.raises(DecryptionFailed):
        open_sealed(KEY, bytes(sealed), PLACE)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_garbage_is_refused(garbage: bytes) -> None:
    """Bytes that were never sealed raise the one error, whatever they are."""
    with pytest.raises(DecryptionFailed):
        open_sealed(KEY, garbage, PLACE)


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" * 32, b"\x02" * 60])
def test_a_short_or_unknown_format_has_no_key_number(sealed: bytes) -> None:
    """The key number is read only from a value that could be one of ours."""
    with pytest.raises(DecryptionFailed):
        key_number(sealed)


def test_another_key_does_not_open() -> None:
    """A wrong key is noticed."""
    with pytest.raises(DecryptionFailed):
        open_sealed(bytes(32), seal(KEY, 1, b"canary", PLACE), PLACE)


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_only_keys_of_32_bytes_are_taken(length: int) -> None:
    """AES with shorter keys is not used by accident."""
    with pytest.raises(ValueError, match="32 bytes"):
        seal(bytes(length), 1, b"", PLACE)


def test_nonces_are_fresh() -> None:
    """Sealing the same value twice gives different bytes."""
    assert seal(KEY, 1, b"canary", PLACE) != seal(KEY, 1, b"canary", PLACE)


def test_the_error_names_the_place_but_no_value() -> None:
    """The error tells table and column, and holds no cause that could carry more."""
    with pytest.raises(DecryptionFailed, match=r"kv_versions\.data") as caught:
        open_sealed(bytes(32), seal(KEY, 1, b"canary", PLACE), PLACE)
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)
