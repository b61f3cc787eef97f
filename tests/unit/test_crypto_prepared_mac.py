"""HMAC with the key's part done once."""

from __future__ import annotations

import hmac
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.crypto.prepared_mac import PreparedMac


@given(st.binary(max_size=64), st.lists(st.binary(max_size=200), max_size=3))
def test_it_is_hmac(key: bytes, messages: list[bytes]) -> None:
    """It gives what the standard library's HMAC gives, each time anew."""
    prepared = PreparedMac(key)
    for message in messages:
        assert prepared.digest(message) == hmac.digest(key, message, "sha256")


def test_it_keeps_its_key_to_itself() -> None:
    """It is neither shown nor pickled, and takes no key that HMAC would hash first."""
    prepared = PreparedMac(b"k" * 32)
    assert repr(prepared) == "PreparedMac(…)"
    with pytest.raises(TypeError):
        pickle.dumps(prepared)
    with pytest.raises(ValueError, match="64"):
        PreparedMac(b"k" * 65)
