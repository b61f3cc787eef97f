"""Secret sharing: restored by enough shares, by no fewer, and readable by others."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyshamir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secrethub.crypto import shamir
from secrethub.errors import InvalidRequest, WrongShare

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "shamir.json").read_text("utf-8"))
SECRET = bytes(range(32))


@st.composite
def splits(draw: st.DrawFn) -> tuple[bytes, int, int, list[bytes]]:
    """A secret, its numbers, and all its shares in any order."""
    secret = draw(st.binary(min_size=1, max_size=48))
    count = draw(st.integers(2, 20))
    threshold = draw(st.integers(2, count))
    return secret, count, threshold, draw(st.permutations(shamir.split(secret, count, threshold)))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_shares_of_another_implementation_combine(vector: dict[str, Any]) -> None:
    """Shares computed with logarithm tables give their secret, whichever are taken."""
    shares = [bytes.fromhex(share) for share in vector["shares"]]
    threshold, secret = vector["threshold"], bytes.fromhex(vector["secret"])
    chosen = random.Random(vector["name"])
    for _ in range(10):
        assert shamir.combine(chosen.sample(shares, threshold)) == secret
    assert shamir.combine(shares[: threshold + 3]) == secret


@settings(deadline=None)
@given(splits())
def test_enough_shares_restore_and_fewer_do_not(split: tuple[bytes, int, int, list[bytes]]) -> None:
    """Any threshold of shares, or more, restore the secret; one fewer gives the secret only by chance."""
    secret, count, threshold, shares = split
    assert shamir.combine(shares[:threshold]) == secret
    assert shamir.combine(shares[: (threshold + count) // 2]) == secret
    if len(secret) >= 8:
        assert shamir.combine(shares[: threshold - 1]) != secret


@settings(deadline=None, max_examples=20)  # pyshamir is slow
@given(splits())
def test_pyshamir_reads_our_shares(split: tuple[bytes, int, int, list[bytes]]) -> None:
    """Another implementation of the same format restores the secret from our shares."""
    secret, _, threshold, shares = split
    assert bytes(pyshamir.combine([bytearray(share) for share in shares[:threshold]])) == secret


@settings(deadline=None, max_examples=20)  # pyshamir is slow
@given(st.binary(min_size=1, max_size=40), st.integers(2, 8))
def test_we_read_shares_of_pyshamir(secret: bytes, threshold: int) -> None:
    """We restore the secret from shares that another implementation made."""
    shares = [bytes(share) for share in pyshamir.split(secret, 8, threshold)]
    assert shamir.combine(shares[-threshold:]) == secret


@settings(deadline=None)
@given(st.integers(2, 6))
def test_mixed_sets_do_not_combine(threshold: int) -> None:
    """One share of another split of the same secret spoils the set."""
    ours, others = shamir.split(SECRET, 6, threshold), shamir.split(SECRET, 6, threshold)
    places = {share[-1] for share in ours[1:threshold]}
    stranger = next((share for share in others if share[-1] not in places), None)
    if stranger is not None:
        assert shamir.combine([stranger, *ours[1:threshold]]) != SECRET


def test_a_changed_share_does_not_restore() -> None:
    """A flipped bit in any byte of any share changes the result."""
    shares = shamir.split(SECRET, 3, 3)
    for index in range(33):
        changed = bytearray(shares[0])
        changed[index] ^= 0x10
        if changed[-1] > 0 and changed[-1] not in {share[-1] for share in shares[1:]}:
            assert shamir.combine([bytes(changed), *shares[1:]]) != SECRET


def test_one_share_too_few_leaves_every_secret_possible() -> None:
    """For each byte value there is a missing share that makes it the secret: K-1 shares tell nothing."""
    (known, missing) = shamir.split(b"\x2a", 2, 2)
    reached = {shamir.combine([known, bytes([y, missing[-1]])])[0] for y in range(256)}
    assert reached == set(range(256))


def test_a_single_share_below_the_threshold_is_spread_evenly() -> None:
    """The y bytes of one share of a constant secret take every value about equally often."""
    counts = Counter(byte for _ in range(200) for byte in shamir.split(bytes(256), 2, 2)[0][:-1])
    assert len(counts) == 256
    # 51,200 draws, 200 expected per value with a deviation of 14: ten of them is no accident.
    assert all(60 < count < 340 for count in counts.values())


def test_the_format_is_y_then_x() -> None:
    """A share is as long as the secret and one byte, its last byte distinct and not zero."""
    shares = shamir.split(SECRET, 255, 2)
    assert {len(share) for share in shares} == {33}
    assert sorted(share[-1] for share in shares) == list(range(1, 256))


def test_a_threshold_of_one_is_the_secret_itself() -> None:
    """With a threshold of 1 each share restores alone."""
    for share in shamir.split(SECRET, 3, 1):
        assert shamir.combine([share]) == SECRET


def test_the_largest_split_restores() -> None:
    """255 of 255 restore, 254 do not."""
    shares = shamir.split(SECRET, 255, 255)
    assert shamir.combine(shares) == SECRET
    assert shamir.combine(shares[1:]) != SECRET


def test_multiplication_and_inverse_are_those_of_the_field() -> None:
    """The arithmetic matches long multiplication for every pair, and every inverse is one."""

    def by_hand(a: int, b: int) -> int:
        product = 0
        for bit in range(8):
            if b >> bit & 1:
                product ^= a << bit
        for bit in range(14, 7, -1):
            if product >> bit & 1:
                product ^= 0x11B << (bit - 8)
        return product

    all_bytes = int.from_bytes(bytes(range(256)), "big")
    for factor in range(256):
        product = shamir._multiply(all_bytes, factor, 256).to_bytes(256, "big")
        assert list(product) == [by_hand(value, factor) for value in range(256)]
    for value in range(1, 256):
        assert by_hand(value, shamir._invert(value)) == 1


@pytest.mark.parametrize(
    ("secret", "shares", "threshold"),
    [(SECRET, 0, 0), (SECRET, 2, 3), (SECRET, 256, 2), (SECRET, 3, 0), (SECRET, 3, -1), (b"", 3, 2)],
)
def test_impossible_splits_are_refused(secret: bytes, shares: int, threshold: int) -> None:
    """Numbers outside the format's limits and empty secrets are refused."""
    with pytest.raises(InvalidRequest):
        shamir.split(secret, shares, threshold)


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ([b""], "malformed"),
        ([b"\x01"], "malformed"),
        ([b"ab\x00", b"cd\x01"], "malformed"),
        ([b"ab\x01", b"cde\x02"], "malformed"),
        ([b"ab\x01", b""], "malformed"),
        ([b"ab\x01", b"cd\x01"], "duplicate"),
        ([b"ab\x01", b"ab\x01"], "duplicate"),
    ],
)
def test_impossible_shares_are_refused(shares: list[bytes], reason: str) -> None:
    """Shares without a place, of two lengths, or at one place are refused with the reason."""
    with pytest.raises(WrongShare) as caught:
        shamir.combine(shares)
    assert caught.value.reason == reason


def test_nothing_combines_to_nothing() -> None:
    """An empty set of shares is refused."""
    with pytest.raises(InvalidRequest):
        shamir.combine([])
