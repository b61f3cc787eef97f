"""Hybrid Public Key Encryption (RFC 9180) in mode_psk, single-shot.

Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Only a holder of the recipient's private
key can open a message, and only a holder of the pre-shared key can make one. cryptography's own
``hpke.Suite`` knows the base mode alone, hence this module; it is checked against the RFC's vectors.

Names follow the RFC, so that the two can be read side by side.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from secrethub.errors import DecryptionFailed, InvalidRequest

NENC = 32
"""Bytes of an encapsulated key."""
_NSECRET = 32
_NK = 32
_NN = 12
_NPSK = 32
_VERSION = b"HPKE-v1"
_MODE_PSK = b"\x01"
_KEM = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0002))


def seal_psk(
    public: bytes,
    plaintext: bytes,
    *,
    info: bytes,
    aad: bytes,
    psk: bytes,
    psk_id: bytes,
    ephemeral: X25519PrivateKey | None = None,
) -> tuple[bytes, bytes]:
    """Encrypt ``plaintext`` to the holder of ``public`` (SealPSK, section 6.1).

    Args:
        public: the recipient's public key, 32 bytes.
        plaintext: what to hide.
        info: what the message is for; both sides must say the same.
        aad: authenticated with the message.
        psk: the pre-shared key, at least 32 bytes of full entropy (section 9.5).
        psk_id: its name; not secret, not empty.
        ephemeral: given by test vectors alone; by default a fresh one.

    Returns:
        The encapsulated key and the ciphertext.

    Raises:
        InvalidRequest: ``public`` is not a usable X25519 key.
    """
    ephemeral = ephemeral or X25519PrivateKey.generate()
    enc = ephemeral.public_key().public_bytes_raw()
    try:
        dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise InvalidRequest("not a usable X25519 public key") from None
    key, nonce = key_schedule(_shared_secret(dh, enc, public), info=info, psk=psk, psk_id=psk_id)
    return enc, AESGCM(key).encrypt(nonce, plaintext, aad)


def open_psk(
    private: X25519PrivateKey,
    enc: bytes,
    ciphertext: bytes,
    *,
    info: bytes,
    aad: bytes,
    psk: bytes,
    psk_id: bytes,
) -> bytes:
    """Decrypt what :func:`seal_psk` made (OpenPSK, section 6.1).

    Raises:
        DecryptionFailed: for another key, with another pre-shared key or other ``info``, or damaged.
    """
    try:
        dh = private.exchange(X25519PublicKey.from_public_bytes(enc))
    except ValueError:
        raise DecryptionFailed("a sealed box without a usable encapsulated key") from None
    secret = _shared_secret(dh, enc, private.public_key().public_bytes_raw())
    key, nonce = key_schedule(secret, info=info, psk=psk, psk_id=psk_id)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise DecryptionFailed("a sealed box does not open here") from None


def key_schedule(shared_secret: bytes, *, info: bytes, psk: bytes, psk_id: bytes) -> tuple[bytes, bytes]:
    """Return the AEAD's key and its first nonce (KeySchedule, section 5.1).

    Raises:
        ValueError: the pre-shared key is too short or has no name.
    """
    if len(psk) < _NPSK or not psk_id:
        raise ValueError("a pre-shared key has 32 bytes or more and a name")
    context = (
        _MODE_PSK
        + _labeled_extract(_HPKE, b"", b"psk_id_hash", psk_id)
        + _labeled_extract(_HPKE, b"", b"info_hash", info)
    )
    secret = _labeled_extract(_HPKE, shared_secret, b"secret", psk)
    return (
        _labeled_expand(_HPKE, secret, b"key", context, _NK),
        _labeled_expand(_HPKE, secret, b"base_nonce", context, _NN),
    )


def _shared_secret(dh: bytes, enc: bytes, public: bytes) -> bytes:
    """ExtractAndExpand of section 4.1."""
    prk = _labeled_extract(_KEM, b"", b"eae_prk", dh)
    return _labeled_expand(_KEM, prk, b"shared_secret", enc + public, _NSECRET)


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    # HKDF-Extract is HMAC keyed with the salt; HMAC pads an empty key with zeros as RFC 5869 asks.
    return hmac.digest(salt, _VERSION + suite + label + ikm, "sha256")


def _labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2, "big") + _VERSION + suite + label + info
    return HKDFExpand(algorithm=SHA256(), length=length, info=labeled).derive(prk)
