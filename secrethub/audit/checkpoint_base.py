"""Where the checkpoints begin, once the oldest were pruned: what the notary signs in their place.

A base stands for all checkpoints up to a number. It has the digest that the next one carries, and the heads
of all streams at that time in the order in which they appeared. These vouch, through the streams' chains,
for every entry that any checkpoint before has vouched for. What is lost is where between two of them somebody
with the ledger's key has forged a stream.

Pure: nothing here stores or fetches.
"""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secrethub.audit.checkpoint import Signed, StreamTree, link
from secrethub.audit.event import StreamHead
from secrethub.crypto.digests import canonical

_BODY = "secrethub/audit/checkpoint-base/v1"


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed.

    Attributes:
        cluster: id of the cluster.
        timeline: of the newest checkpoint that it stands for.
        sequence: its number.
        epoch: incarnation of the notary that made it.
        link: its digest, which the next one carries.
        heads: of all streams.
    """

    cluster: str
    timeline: int
    sequence: int
    epoch: int
    link: bytes
    heads: tuple[StreamHead, ...]


class SignedBase(msgspec.Struct, frozen=True):
    """A base and its signature (64 bytes)."""

    base: Base
    signature: bytes


def signed_bytes(base: Base) -> bytes:
    """Return what the signature is made over: a canonical encoding of every field."""
    heads: list[list[str | int | bytes]] = [[head.stream, head.number, head.head] for head in base.heads]
    return canonical(_BODY, base.cluster, base.timeline, base.sequence, base.epoch, base.link, heads)


def sign_base(key: Ed25519PrivateKey, last: Signed, tree: StreamTree) -> SignedBase:
    """Return the base that stands for ``last`` and all before it.

    Args:
        key: the notary's.
        last: a checkpoint, verified with all before it.
        tree: of ``last``.
    """
    c = last.checkpoint
    base = Base(
        cluster=c.cluster,
        timeline=c.timeline,
        sequence=c.sequence,
        epoch=c.epoch,
        link=link(last),
        heads=tuple(tree),
    )
    return SignedBase(base, key.sign(signed_bytes(base)))


def is_base_signed(signed: SignedBase, public: bytes) -> bool:
    """Tell whether the signature is that of the holder of ``public`` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signed.signature, signed_bytes(signed.base))
    except (InvalidSignature, ValueError, OverflowError, TypeError, UnicodeEncodeError):
        return False
    return True
