"""Unseal slots: ways to open the root key. Here the Shamir slot, a key split among people.

The slot's key is random, split into shares and forgotten; the root key is sealed under it. The slot
keeps a digest of each share, so that a wrong share is recognised by itself, without waiting for the
others. A share has 256 random bits, so its digest tells nothing about it.

What the slot says of itself (cluster, id, counts, digests) is bound to the sealed root key: a slot
edited in the database does not open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from secrethub.crypto import aead, shamir
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import derive, equal, sha256
from secrethub.errors import InvalidRequest, WrongShare
from secrethub.ids import new_uuid
from secrethub.seal.shares import SHARE_BYTES

KEY_BYTES = 32
_MOST_SHARES = 255


class ShamirSlot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A root key behind ``threshold`` of ``shares`` shares. Holds nothing secret.

    Attributes:
        slot_id: UUID of the slot.
        cluster_id: UUID of the cluster it belongs to.
        shares: how many shares exist.
        threshold: how many open the slot.
        share_digests: one for each share, in the order they were given out.
        wrapped_root: the root key, sealed under the slot's key.
    """

    slot_id: str
    cluster_id: str
    shares: int
    threshold: int
    share_digests: tuple[bytes, ...]
    wrapped_root: bytes


def check_numbers(shares: int, threshold: int) -> None:
    """Check how many shares are made, and how many of them open the slot.

    Raises:
        InvalidRequest: that cannot be done, or would be no sharing.
    """
    if not 1 <= shares <= _MOST_SHARES:
        raise InvalidRequest("secret_shares must be between 1 and 255")
    if not 1 <= threshold <= shares:
        raise InvalidRequest("secret_threshold must be between 1 and secret_shares")
    if shares > 1 and threshold == 1:
        raise InvalidRequest("secret_threshold must be at least 2 when there is more than one share")


def make_shamir_slot(
    cluster_id: str, root_key: bytes, shares: int, threshold: int
) -> tuple[ShamirSlot, list[bytes]]:
    """Make a slot for ``root_key`` and the shares that open it, which are kept nowhere else.

    Args:
        cluster_id: the cluster's UUID.
        root_key: 32 bytes.
        shares: how many to make, up to 255.
        threshold: how many open the slot; at least 2 when there is more than one share.

    Raises:
        InvalidRequest: numbers outside these limits.
    """
    check_numbers(shares, threshold)
    if len(root_key) != KEY_BYTES:
        raise ValueError("the root key has 32 bytes")
    slot_key = os.urandom(KEY_BYTES)
    made = shamir.split(slot_key, shares, threshold)
    slot_id = new_uuid()
    slot = ShamirSlot(
        slot_id=slot_id,
        cluster_id=cluster_id,
        shares=shares,
        threshold=threshold,
        share_digests=tuple(_digest(slot_id, share) for share in made),
        wrapped_root=b"",
    )
    wrapped = aead.seal(_wrapping_key(slot_key), 0, root_key, _place(slot))
    return msgspec.structs.replace(slot, wrapped_root=wrapped), made


def recognise(slot: ShamirSlot, share: bytes) -> int:
    """Return the index of ``share`` among the slot's shares.

    Raises:
        WrongShare: ``malformed`` when it cannot be a share at all, ``unknown`` when it is none of
            this slot's.
    """
    if len(share) != SHARE_BYTES or share[-1] == 0:
        raise WrongShare(f"a share has {SHARE_BYTES} bytes, the last of them not zero", "malformed")
    digest = _digest(slot.slot_id, share)
    found = [index for index, known in enumerate(slot.share_digests) if equal(known, digest)]
    if not found:
        raise WrongShare("this share does not belong to the cluster's unseal key", "unknown")
    return found[0]


def open_slot(slot: ShamirSlot, shares: Sequence[bytes]) -> bytes:
    """Return the root key.

    Args:
        slot: the slot to open.
        shares: at least ``slot.threshold`` different shares of it.

    Raises:
        InvalidRequest: too few.
        WrongShare: one that is malformed, not the slot's, or given twice.
        DecryptionFailed: the shares are right, but the slot's row was edited or damaged.
    """
    if len({recognise(slot, share) for share in shares}) != len(shares):
        raise WrongShare("a share was given twice", "duplicate")
    if len(shares) < max(slot.threshold, 1):
        raise InvalidRequest(f"{slot.threshold} shares are needed")
    slot_key = shamir.combine(shares)
    return aead.open_sealed(_wrapping_key(slot_key), slot.wrapped_root, _place(slot))


def _digest(slot_id: str, share: bytes) -> bytes:
    return sha256("secrethub/share/v1", slot_id, share[-1:], share[:-1])


def _wrapping_key(slot_key: bytes) -> bytes:
    return derive(slot_key, "secrethub/slot/root")


def _place(slot: ShamirSlot) -> Place:
    description = sha256(
        "secrethub/slot/v1",
        slot.cluster_id,
        slot.slot_id,
        slot.shares,
        slot.threshold,
        slot.share_digests,
    )
    return Place(table="seal_slots", column="wrapped_root", row=description.hex(), version=1)
