"""Sealed boxes: how key bytes travel between two processes of one cluster.

The receiver makes a fresh key pair for each hand-over and proves with :func:`proof` that it holds
the cluster's pre-shared key; the giver checks that and seals to the public key with HPKE in
mode_psk. A box opens only with the private key, the pre-shared key and the same ``info``, which
names cluster, node, purpose and epoch. So without the cluster's key nobody is given a box, and
nobody can pass off a box as the cluster's.

A recorded request that is sent again yields a box that only the first requester can open. A recorded
box that is sent again opens again, as long as its recipient lives and expects the same ``info``: who
must not act twice on one puts a number that moves on (the seal epoch) into ``info``.
"""

from __future__ import annotations

from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from secrethub.crypto import hpke
from secrethub.crypto.digests import canonical, derive, equal, mac
from secrethub.errors import DecryptionFailed, Misconfigured, PermissionDenied

_PSK_ID = b"secrethub cluster key v1"


class Recipient:
    """A fresh X25519 key pair that boxes are sealed to. Hidden in ``repr``, refuses pickling.

    Attributes:
        public: the public key, 32 bytes.
    """

    __slots__ = ("_private", "public")

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def open(self, box: bytes, psk: bytes, info: bytes) -> bytes:
        """Return what :func:`seal_to` sealed to this key.

        Args:
            box: encapsulated key ‖ ciphertext.
            psk: the cluster's pre-shared key.
            info: what the box must be for, from :func:`info`.

        Raises:
            DecryptionFailed: sealed to another key, without the pre-shared key, for something else,
                or damaged.
        """
        if len(box) < hpke.NENC:
            raise DecryptionFailed("a sealed box is longer than this")
        enc, ciphertext = box[: hpke.NENC], box[hpke.NENC :]
        return hpke.open_psk(
            self._private, enc, ciphertext, info=info, aad=b"", psk=_subkey(psk, "hpke"), psk_id=_PSK_ID
        )

    def __repr__(self) -> str:
        return f"Recipient(public={self.public.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Recipient is not pickled; send its public key")


def seal_to(public: bytes, plaintext: bytes, psk: bytes, info: bytes) -> bytes:
    """Seal ``plaintext`` to the holder of ``public``: encapsulated key (32) ‖ ciphertext.

    Check the requester's :func:`proof` first.

    Raises:
        InvalidRequest: ``public`` is not a usable X25519 key.
    """
    enc, ciphertext = hpke.seal_psk(
        public, plaintext, info=info, aad=b"", psk=_subkey(psk, "hpke"), psk_id=_PSK_ID
    )
    return enc + ciphertext


def info(cluster: str, node: str, purpose: str, epoch: int) -> bytes:
    """Name a hand-over: both sides must come to the same bytes by themselves.

    Args:
        cluster: the cluster's id, empty before it has one.
        node: the node that receives.
        purpose: what is handed over, e.g. ``keyring``.
        epoch: the seal epoch or incarnation it belongs to.
    """
    return canonical("secrethub/hand-over/v1", cluster, node, purpose, epoch)


def proof(psk: bytes, public: bytes, info: bytes) -> bytes:
    """Show that the requester of a box to ``public`` holds the pre-shared key (HMAC-SHA256)."""
    return mac(_subkey(psk, "proof"), "secrethub/hand-over/proof/v1", public, info)


def check_proof(psk: bytes, public: bytes, info: bytes, given: bytes) -> None:
    """Refuse a requester that does not hold the pre-shared key.

    Raises:
        PermissionDenied: ``given`` is not the :func:`proof` for ``public`` and ``info``.
    """
    if not equal(proof(psk, public, info), given):
        raise PermissionDenied("the requester does not hold the cluster's key")


def _subkey(psk: bytes, use: str) -> bytes:
    # One key per algorithm: what HMAC answers must say nothing about HPKE's secret.
    if len(psk) < 32:
        raise Misconfigured("the cluster key must have at least 32 bytes")
    return derive(psk, f"secrethub/hand-over/{use}")
