"""How shares are written and read."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secrethub.errors import WrongShare
from secrethub.seal.shares import decode_share, encode_share

SHARE = bytes(range(33))


@settings(deadline=None)
@given(st.binary(min_size=33, max_size=33))
def test_both_spellings_are_read(share: bytes) -> None:
    """A share is read from hexadecimal of either case and from base64, with blanks around it."""
    in_hex, in_base64 = encode_share(share)
    for text in (in_hex, in_hex.upper(), in_base64, f"  {in_hex}\n", f"\t{in_base64} "):
        assert decode_share(text) == share


def test_the_spellings_are_those_of_vault() -> None:
    """Hexadecimal in lower case and padded standard base64, as init prints them."""
    assert encode_share(SHARE) == (SHARE.hex(), base64.b64encode(SHARE).decode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        SHARE.hex()[:-1],
        SHARE.hex() + "00",
        "g" * 66,
        "é" * 66,
        SHARE.hex()[:60] + "  " + SHARE.hex()[62:],
        base64.b64encode(bytes(32)).decode(),
        base64.b64encode(bytes(34)).decode(),
        "!" * 44,
        "ä" * 44,
        "A" * 40 + "====",
        "_-" * 22,
        "A" * 1_000_000,
    ],
)
def test_anything_else_is_malformed(text: str) -> None:
    """Other lengths and letters are refused as malformed, without repeating what was typed."""
    with pytest.raises(WrongShare) as caught:
        decode_share(text)
    assert caught.value.reason == "malformed"
    assert caught.value.__cause__ is caught.value.__context__ is None
    if text:
        assert text not in str(caught.value)
