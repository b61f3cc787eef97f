"""Unseal slots: ways to open the root key. Any one of them does.

A slot has a random secret of 32 bytes and the key pair that is derived from it. The root key is sealed to
the public key (:mod:`secrethub.crypto.hybrid`), so a new root key can be sealed to every slot without the
help of those who open them, and a former root key tells nothing about the next. The secret itself is

- split into shares and forgotten (``ShamirSlot``), or
- wrapped by a key service of a cloud (``KmsSlot``).

A cluster has one set of shares that counts: besides opening, they authorise what changes the slots. A set
whose slot was removed goes on authorising and opens nothing any more: recovery shares.

A share set keeps a digest of each share, so that a wrong share is recognised by itself, without waiting
for the others. A share has 256 random bits, so its digest tells nothing about it.

What a slot says of itself is bound to the sealed root key: a slot edited in the database does not open.
And rows carry a MAC under the root key (:func:`slot_mac`), or a stranger's slot would be sealed to, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from secrethub.crypto import shamir
from secrethub.crypto.digests import Part, derive, equal, mac, sha256
from secrethub.crypto.hybrid import HybridKey, seal_hybrid
from secrethub.errors import DecryptionFailed, InvalidRequest, WrongShare
from secrethub.ids import new_uuid
from secrethub.seal.shares import SHARE_BYTES

KEY_BYTES = 32
_MOST_SHARES = 255

KmsKind = Literal["awskms", "gcpckms", "azurekeyvault"]
KMS_KINDS: tuple[str, ...] = get_args(KmsKind)


class ShamirSlot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="shamir"):
    """A set of ``shares`` shares of which ``threshold`` count. Holds nothing secret.

    Attributes:
        slot_id: UUID of the slot.
        cluster_id: UUID of the cluster it belongs to.
        shares: how many shares exist.
        threshold: how many open the slot, or authorise a change.
        share_digests: one for each share, in the order they were given out.
        public: the public key that the root key is sealed to.
        wrapped_root: the root key, sealed to the slot; empty for recovery shares, which open nothing.
        opens: whether the root key is sealed to it.
        leaving: a newer set of shares was made, and it is not certain yet that somebody has it.
    """

    slot_id: str
    cluster_id: str
    shares: int
    threshold: int
    share_digests: tuple[bytes, ...]
    public: bytes
    wrapped_root: bytes
    opens: bool = True
    leaving: bool = False


class KmsSlot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="kms"):
    """A slot whose secret a key service wraps. Holds nothing secret.

    Attributes:
        slot_id: UUID of the slot.
        cluster_id: UUID of the cluster it belongs to.
        kind: of the key service.
        service: name of the key in the nodes' settings, which say where it is and with what to sign in.
        wrapped_secret: the slot's secret, wrapped by that key for this cluster and slot.
        public: the public key that the root key is sealed to.
        wrapped_root: the root key, sealed to the slot.
    """

    slot_id: str
    cluster_id: str
    kind: KmsKind
    service: str
    wrapped_secret: bytes
    public: bytes
    wrapped_root: bytes

    @property
    def opens(self) -> bool:
        """Whether the root key is sealed to it: always."""
        return True


Slot = ShamirSlot | KmsSlot


def kind_of(slot: Slot) -> str:
    """Return what people call the slot's kind."""
    if isinstance(slot, KmsSlot):
        return slot.kind
    return "shamir" if slot.opens else "recovery"


def check_numbers(shares: int, threshold: int, kind: str = "secret") -> None:
    """Check how many shares are made, and how many of them count.

    Args:
        shares: to make.
        threshold: that count.
        kind: what the request's fields begin with.

    Raises:
        InvalidRequest: that cannot be done, or would be no sharing.
    """
    if not 1 <= shares <= _MOST_SHARES:
        raise InvalidRequest(f"{kind}_shares must be between 1 and 255")
    if not 1 <= threshold <= shares:
        raise InvalidRequest(f"{kind}_threshold must be between 1 and {kind}_shares")
    if shares > 1 and threshold == 1:
        raise InvalidRequest(f"{kind}_threshold must be at least 2 when there is more than one share")


def make_share_set(
    cluster_id: str, shares: int, threshold: int, *, opens: bool
) -> tuple[ShamirSlot, list[bytes]]:
    """Make a set of shares, which are kept nowhere else; nothing is sealed to it yet.

    Args:
        cluster_id: the cluster's UUID.
        shares: how many to make, up to 255.
        threshold: how many count; at least 2 when there is more than one share.
        opens: whether they shall open the root key, or only authorise.

    Raises:
        InvalidRequest: numbers outside these limits.
    """
    check_numbers(shares, threshold)
    secret = os.urandom(KEY_BYTES)
    made = shamir.split(secret, shares, threshold)
    slot_id = new_uuid()
    slot = ShamirSlot(
        slot_id=slot_id,
        cluster_id=cluster_id,
        shares=shares,
        threshold=threshold,
        share_digests=tuple(_digest(slot_id, share) for share in made),
        public=HybridKey(secret).public,
        wrapped_root=b"",
        opens=opens,
    )
    return slot, made


def make_shamir_slot(
    cluster_id: str, root_key: bytes, shares: int, threshold: int
) -> tuple[ShamirSlot, list[bytes]]:
    """Make a slot for ``root_key`` and the shares that open it, which are kept nowhere else.

    Raises:
        InvalidRequest: numbers outside the limits of :func:`make_share_set`.
    """
    slot, made = make_share_set(cluster_id, shares, threshold, opens=True)
    return msgspec.structs.replace(slot, wrapped_root=_wrapped(slot, root_key)), made


def sealed_to(slot: Slot, root_key: bytes) -> Slot:
    """Return the slot with ``root_key`` sealed to it. Its row must have been authenticated before."""
    wrapped = _wrapped(slot, root_key) if slot.opens else b""
    return msgspec.structs.replace(slot, wrapped_root=wrapped)


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


def slot_secret(slot: ShamirSlot, shares: Sequence[bytes]) -> bytes:
    """Return the secret that the shares are of, after showing that it is the slot's.

    Args:
        slot: the set of shares.
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
    secret = shamir.combine(shares)
    if not equal(HybridKey(secret).public, slot.public):
        raise DecryptionFailed("the shares are not those of the slot's public key")
    return secret


def open_slot(slot: ShamirSlot, shares: Sequence[bytes]) -> bytes:
    """Return the root key; see :func:`slot_secret` for arguments and errors."""
    return open_with(slot, slot_secret(slot, shares))


def open_with(slot: Slot, secret: bytes) -> bytes:
    """Return the root key with the slot's secret.

    Raises:
        DecryptionFailed: not the slot's secret, or the slot's row was edited or damaged.
    """
    root_key = HybridKey(secret).open(slot.wrapped_root, _info(slot))
    if len(root_key) != KEY_BYTES:
        raise DecryptionFailed("what is sealed to the slot is no root key")
    return root_key


def slot_mac(root_key: bytes, slot: Slot) -> bytes:
    """Return the MAC that a slot's row carries under the root key."""
    key = derive(root_key, "secrethub/root/slots")
    leaving = isinstance(slot, ShamirSlot) and slot.leaving
    return mac(key, "secrethub/slot-row/v1", *_described(slot), leaving, slot.wrapped_root)


def _digest(slot_id: str, share: bytes) -> bytes:
    return sha256("secrethub/share/v1", slot_id, share[-1:], share[:-1])


def _wrapped(slot: Slot, root_key: bytes) -> bytes:
    if len(root_key) != KEY_BYTES:
        raise ValueError("the root key has 32 bytes")
    return seal_hybrid(slot.public, root_key, _info(slot))


def _info(slot: Slot) -> bytes:
    return sha256("secrethub/slot/v1", *_described(slot))


def _described(slot: Slot) -> tuple[Part, ...]:
    """Return what the slot says of itself, its sealed root key aside."""
    common = (slot.cluster_id, slot.slot_id, slot.public)
    if isinstance(slot, KmsSlot):
        return (slot.kind, *common, slot.service, slot.wrapped_secret)
    return ("shamir", *common, slot.shares, slot.threshold, slot.share_digests, slot.opens)
