"""Checkpoints: what the notary signs of all streams at one instant.

A checkpoint names the heads that moved since the one before, and the root of the Merkle tree
(:mod:`secrethub.audit.merkle`) over the heads of *all* streams, in the order in which they first
appeared. It carries the digest of the checkpoint before it, signature included, so the newest one vouches
for all of them. The signature is Ed25519 (RFC 8032), whose private key no serving process has: who holds
the ledger's HMAC key can write entries, but can change none that a checkpoint knows.

Pure: nothing here stores or fetches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secrethub.audit.event import GENESIS, StreamHead
from secrethub.audit.merkle import MerkleTree
from secrethub.crypto.digests import canonical, sha256

_BODY = "secrethub/audit/checkpoint/v1"
_LINK = "secrethub/audit/checkpoint-link/v1"

BEFORE_FIRST = GENESIS
"""What stands for the link of the checkpoint before the first."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed.

    Attributes:
        cluster: id of the cluster.
        timeline: from 1; one more after each restore that was accepted.
        sequence: from 1, without gaps within the database.
        epoch: incarnation of the notary.
        at: microseconds since the epoch, UTC.
        previous: :func:`link` of the checkpoint before, zeros for the first.
        streams: leaves of the tree.
        root: of the tree.
        heads: of the streams that moved; those of new streams are appended to the tree in this order.
    """

    cluster: str
    timeline: int
    sequence: int
    epoch: int
    at: int
    previous: bytes
    streams: int
    root: bytes
    heads: tuple[StreamHead, ...]


class Signed(msgspec.Struct, frozen=True):
    """A checkpoint and its signature (64 bytes)."""

    checkpoint: Checkpoint
    signature: bytes


def signed_bytes(checkpoint: Checkpoint) -> bytes:
    """Return what the signature is made over: a canonical encoding of every field."""
    c = checkpoint
    heads: list[list[str | int | bytes]] = [[head.stream, head.number, head.head] for head in c.heads]
    return canonical(
        _BODY, c.cluster, c.timeline, c.sequence, c.epoch, c.at, c.previous, c.streams, c.root, heads
    )


def sign(key: Ed25519PrivateKey, checkpoint: Checkpoint) -> Signed:
    """Return ``checkpoint`` with its signature."""
    return Signed(checkpoint, key.sign(signed_bytes(checkpoint)))


def is_signed(signed: Signed, public: bytes) -> bool:
    """Tell whether the signature is that of the holder of ``public`` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signed.signature, signed_bytes(signed.checkpoint))
    except (InvalidSignature, ValueError, OverflowError, TypeError, UnicodeEncodeError):
        return False
    return True


def link(signed: Signed) -> bytes:
    """Return what the next checkpoint carries of this one (32 bytes)."""
    return sha256(_LINK, signed_bytes(signed.checkpoint), signed.signature)


class StreamTree:
    """The heads of all streams, in the order in which they appeared, and the tree over them."""

    __slots__ = ("_heads", "_places", "_tree")

    def __init__(self, heads: Iterable[StreamHead] = ()) -> None:
        """Begin with ``heads`` in order."""
        self._tree = MerkleTree()
        self._places: dict[str, int] = {}
        self._heads: dict[str, StreamHead] = {}
        self.move(heads)

    def __len__(self) -> int:
        return len(self._tree)

    def get(self, stream: str) -> StreamHead | None:
        """Return the head of a stream, or None when it is not known."""
        return self._heads.get(stream)

    def __iter__(self) -> Iterator[StreamHead]:
        return iter(self._heads.values())

    def place(self, stream: str) -> int:
        """Return the place of a known stream, from 0."""
        return self._places[stream]

    def move(self, heads: Iterable[StreamHead]) -> None:
        """Take over new heads."""
        for head in heads:
            leaf = canonical(head.stream, head.number, head.head)
            place = self._places.get(head.stream)
            if place is None:
                self._places[head.stream] = len(self._tree)
                self._tree.append(leaf)
            else:
                self._tree.replace(place, leaf)
            self._heads[head.stream] = head

    def root(self) -> bytes:
        """Return the root of the tree."""
        return self._tree.root()
