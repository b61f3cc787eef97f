"""The notary's signing key: Ed25519 (RFC 8032), sealed under the root key.

Serving processes, which hold the keyring but not the root key, cannot open it: a compromised one can
forge no checkpoint. A new root key seals the same signing key anew (:func:`wrap`), so the public key that
auditors keep stays what it is.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secrethub.crypto import aead
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import derive, equal, mac
from secrethub.crypto.keyring import Keyring
from secrethub.errors import DecryptionFailed


def public_of(key: Ed25519PrivateKey) -> bytes:
    """Return the public key, 32 bytes."""
    return key.public_key().public_bytes_raw()


def wrap(root_key: bytes, key: Ed25519PrivateKey, cluster_id: str) -> bytes:
    """Seal the signing key under the root key, for this cluster only."""
    return aead.seal(_wrapping_key(root_key), 0, key.private_bytes_raw(), _place(cluster_id))


def unwrap(root_key: bytes, wrapped: bytes, cluster_id: str, public: bytes) -> Ed25519PrivateKey:
    """Open what :func:`wrap` sealed.

    Args:
        root_key: 32 bytes.
        wrapped: the sealed key.
        cluster_id: whose.
        public: the public key that it must belong to.

    Raises:
        DecryptionFailed: another root key or cluster, damaged, or beside another public key.
    """
    key = Ed25519PrivateKey.from_private_bytes(
        aead.open_sealed(_wrapping_key(root_key), wrapped, _place(cluster_id))
    )
    if not equal(public_of(key), public):
        raise DecryptionFailed("the notary's public key is another one's")
    return key


def vouch(keyring: Keyring, cluster_id: str, public: bytes) -> bytes:
    """Return what tells holders of the keyring that ``public`` is the notary's (32 bytes)."""
    return mac(keyring.derived("notary"), "secrethub/notary/public/v1", cluster_id, public)


def _wrapping_key(root_key: bytes) -> bytes:
    if len(root_key) != 32:
        raise ValueError("the root key has 32 bytes")
    return derive(root_key, "secrethub/root/notary")


def _place(cluster_id: str) -> Place:
    return Place(table="cluster", column="wrapped_notary", row=cluster_id, version=0)
