"""Sealing to a public key that lies in the database for years: HPKE with a post-quantum hybrid.

HPKE's base mode (RFC 9180) with the KEM MLKEM768-X25519 (draft-ietf-hpke-pq), HKDF-SHA256 and
AES-256-GCM. It stays closed as long as one of ML-KEM-768 (FIPS 203) and X25519 holds, so that a database
that was copied today is no use to whoever can break the second one later.

A key pair is derived from 32 secret bytes, so that only those have to be kept, or split into shares.
"""

from __future__ import annotations

from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secrethub.crypto.digests import derive
from secrethub.errors import DecryptionFailed, IntegrityFailure

_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_MLKEM_PUBLIC = 1184
_PUBLIC = _MLKEM_PUBLIC + 32


class HybridKey:
    """A key pair. Hidden in ``repr``, refuses pickling.

    Attributes:
        public: ML-KEM-768's public key (1,184 bytes) followed by X25519's (32).
    """

    __slots__ = ("_private", "public")

    def __init__(self, secret: bytes) -> None:
        """Derive the key pair from 32 uniformly random bytes."""
        mlkem = MLKEM768PrivateKey.from_seed_bytes(derive(secret, "secrethub/hybrid/ml-kem-768", 64))
        x25519 = X25519PrivateKey.from_private_bytes(derive(secret, "secrethub/hybrid/x25519"))
        self._private = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what :func:`seal_hybrid` sealed to this key.

        Raises:
            DecryptionFailed: sealed to another key, for something else, or damaged.
        """
        try:
            return _SUITE.decrypt(sealed, self._private, info)
        except InvalidTag:
            raise DecryptionFailed("what is sealed to a public key does not open") from None

    def __repr__(self) -> str:
        return "HybridKey(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a HybridKey is not pickled")


def seal_hybrid(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Seal ``plaintext`` to the holder of ``public``: encapsulated key (1,120 bytes) ‖ ciphertext ‖ tag.

    Whoever can exchange ``public`` gets to know what is sealed to it: authenticate it first.

    Args:
        public: :attr:`HybridKey.public`.
        plaintext: what to hide; its length shows.
        info: what it is for; it opens for nothing else.

    Raises:
        IntegrityFailure: ``public`` is not a public key.
    """
    try:
        if len(public) != _PUBLIC:
            raise ValueError("wrong length")
        mlkem = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC])
        x25519 = X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:])
        return _SUITE.encrypt(plaintext, hpke.MLKEM768X25519PublicKey(mlkem, x25519), info)
    except ValueError:
        raise IntegrityFailure("public key", "", "not a usable public key") from None
