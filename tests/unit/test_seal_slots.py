"""Shamir slots: shares are recognised one by one, and an edited slot does not open."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from secrethub.crypto import shamir
from secrethub.errors import DecryptionFailed, InvalidRequest, WrongShare
from secrethub.ids import is_uuid
from secrethub.seal.slots import (
    ShamirSlot,
    make_shamir_slot,
    make_share_set,
    open_slot,
    recognise,
    sealed_to,
    slot_mac,
    slot_secret,
)

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "formats.json").read_text("utf-8"))["slot"]
CLUSTER = "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10"
ROOT = bytes(range(32))


def test_the_stored_format_matches_the_vector() -> None:
    """A slot stored by an older version still recognises its share and opens."""
    share = bytes.fromhex(VECTOR["share"])
    slot = ShamirSlot(
        slot_id=VECTOR["slot_id"],
        cluster_id=VECTOR["cluster_id"],
        shares=1,
        threshold=1,
        share_digests=(bytes.fromhex(VECTOR["share_digest"]),),
        public=bytes.fromhex(VECTOR["public"]),
        wrapped_root=bytes.fromhex(VECTOR["wrapped_root"]),
    )
    assert recognise(slot, share) == 0
    root = open_slot(slot, [share])
    assert root.hex() == VECTOR["root_key"]
    assert slot_mac(root, slot).hex() == VECTOR["mac"]


def test_every_quorum_opens() -> None:
    """Any three of five shares, in any order, and all five give the root key."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 5, 3)
    for quorum in combinations(shares, 3):
        assert open_slot(slot, quorum) == ROOT
        assert open_slot(slot, quorum[::-1]) == ROOT
    assert open_slot(slot, shares) == ROOT


def test_fewer_shares_do_not_open() -> None:
    """Below the threshold the slot refuses, and the shares alone do not give its key."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 5, 3)
    for few in (shares[:2], shares[:1], []):
        with pytest.raises(InvalidRequest):
            open_slot(slot, few)
    assert shamir.combine(shares[:2]) != shamir.combine(shares[:3])


def test_shares_are_recognised_by_index() -> None:
    """Each share is known by its position, and a share has 33 bytes."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 5, 3)
    assert [recognise(slot, share) for share in shares] == [0, 1, 2, 3, 4]
    assert {len(share) for share in shares} == {33}


def test_a_mistyped_share_is_unknown() -> None:
    """A share with any one byte changed is refused by itself."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    for index in range(33):
        changed = bytearray(shares[0])
        changed[index] = changed[index] % 255 + 1
        with pytest.raises(WrongShare) as caught:
            recognise(slot, bytes(changed))
        assert caught.value.reason == "unknown"


def test_a_share_of_another_slot_is_unknown() -> None:
    """Shares of another slot of the same cluster and root key are refused by themselves."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    _, others = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    with pytest.raises(WrongShare) as caught:
        open_slot(slot, [shares[0], others[1]])
    assert caught.value.reason == "unknown"


@pytest.mark.parametrize("share", [b"", bytes(33), b"\x01" * 32, b"\x01" * 34, b"\x01" * 32 + b"\x00"])
def test_what_cannot_be_a_share_is_malformed(share: bytes) -> None:
    """A wrong length or the place 0 is malformed, not merely unknown."""
    slot, _ = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    with pytest.raises(WrongShare) as caught:
        recognise(slot, share)
    assert caught.value.reason == "malformed"


def test_a_share_counts_once() -> None:
    """The same share twice is no quorum."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    with pytest.raises(WrongShare) as caught:
        open_slot(slot, [shares[0], shares[0]])
    assert caught.value.reason == "duplicate"


def test_an_edited_slot_does_not_open() -> None:
    """Changing what the slot says of itself, or its blob, in the database is noticed."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 5, 3)
    other, _ = make_shamir_slot(CLUSTER, ROOT, 5, 3)
    blob = slot.wrapped_root
    for edited in (
        replace(slot, cluster_id="0b0e8a6f-6a2f-4f4f-9d0c-0d9e3a5b7c21"),
        replace(slot, threshold=2),
        replace(slot, threshold=0),
        replace(slot, shares=6),
        replace(slot, share_digests=(*slot.share_digests[:-1], bytes(32))),
        replace(slot, share_digests=slot.share_digests[:3]),
        replace(slot, wrapped_root=other.wrapped_root),
        replace(slot, wrapped_root=blob[:-1] + bytes([blob[-1] ^ 1])),
        replace(slot, wrapped_root=b""),
        replace(slot, public=other.public),
        replace(slot, opens=False),
    ):
        with pytest.raises(DecryptionFailed):
            open_slot(edited, shares[:3])


@pytest.mark.parametrize(
    ("shares", "threshold"),
    [(0, 0), (1, 0), (1, 2), (3, 1), (3, 4), (256, 3), (3, 0), (-1, -1), (3, -1)],
)
def test_numbers_outside_the_limits_are_refused(shares: int, threshold: int) -> None:
    """The limits are Vault's: 1 to 255 shares, and a threshold of 1 only for a single share."""
    with pytest.raises(InvalidRequest, match="secret_"):
        make_shamir_slot(CLUSTER, ROOT, shares, threshold)


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (2, 2), (255, 255), (255, 2)])
def test_numbers_at_the_limits_work(shares: int, threshold: int) -> None:
    """The smallest and largest slots open."""
    slot, made = make_shamir_slot(CLUSTER, ROOT, shares, threshold)
    assert len(made) == shares
    assert open_slot(slot, made[-threshold:]) == ROOT


def test_a_slot_holds_no_key_bytes() -> None:
    """Neither root key nor shares are found in a stored slot, which survives encoding."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    encoded = msgspec.msgpack.encode(slot)
    assert msgspec.msgpack.decode(encoded, type=ShamirSlot) == slot
    for secret in (ROOT, *(share[:-1] for share in shares), shamir.combine(shares[:2])):
        assert secret not in encoded
    assert is_uuid(slot.slot_id)


def test_a_root_key_of_another_length_is_refused() -> None:
    """A root key has 32 bytes."""
    with pytest.raises(ValueError, match="32 bytes"):
        make_shamir_slot(CLUSTER, b"short", 3, 2)


def test_a_new_root_key_is_sealed_without_the_shares() -> None:
    """The same shares open the next root key, and with the former one nothing of it is told."""
    slot, shares = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    following = bytes(range(1, 33))
    after = sealed_to(slot, following)
    assert open_slot(after, shares[1:]) == following  # type: ignore[arg-type]
    assert replace(after, wrapped_root=slot.wrapped_root) == slot


def test_recovery_shares_open_nothing() -> None:
    """A set that only authorises shows that its shares are right, and has no root key to give."""
    slot, shares = make_share_set(CLUSTER, 3, 2, opens=False)
    kept = sealed_to(slot, ROOT)
    assert kept.wrapped_root == b""
    assert shamir.combine(shares[:2]) == slot_secret(slot, shares[:2])
    with pytest.raises(DecryptionFailed):
        open_slot(slot, shares[:2])


def test_a_row_is_authentic_under_one_root_key() -> None:
    """The MAC of a slot's row covers everything in it, and another root key makes another one."""
    slot, _ = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    other, _ = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    edited = (
        replace(slot, public=other.public),
        replace(slot, leaving=True),
        replace(slot, opens=False),
        replace(slot, threshold=1),
        replace(slot, wrapped_root=other.wrapped_root),
        other,
    )
    assert len({slot_mac(ROOT, one) for one in (slot, *edited)} | {slot_mac(bytes(32), slot)}) == 8


def test_shares_must_be_those_of_the_public_key() -> None:
    """Digests and shares of one's own in a row do not authorise for the public key that is there."""
    slot, _ = make_shamir_slot(CLUSTER, ROOT, 3, 2)
    mine, shares = make_shamir_slot(CLUSTER, bytes(32), 3, 2)
    forged = replace(mine, public=slot.public)
    with pytest.raises(DecryptionFailed):
        slot_secret(forged, shares[:2])
