"""Sealed values: AES-256-GCM, versioned and bound to the place where they are kept.

Layout: ``0x01`` ‖ key number (4 bytes, big-endian) ‖ nonce (12) ‖ ciphertext ‖ tag (16). The first
five bytes and the place are associated data, so a value that was copied to another table, column,
row or version does not open there, nor under another key number.

Nonces are random: one key seals at most 2^32 values.
"""

from __future__ import annotations

import os
import struct

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secrethub.crypto.digests import canonical
from secrethub.errors import DecryptionFailed

_FORMAT = 1
_HEADER = struct.Struct(">BI")
_NONCE = 12
_TAG = 16
_BODY = _HEADER.size + _NONCE
_SHORTEST = _BODY + _TAG
_DOMAIN = "secrethub/sealed/v1"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sealed value is kept.

    Attributes:
        table: the table's name.
        column: the column's name.
        row: the row's primary key as text.
        version: the row's version or revision.
        bound: all of that as one text, which a value that is sealed for the place is bound to.
    """

    table: str
    column: str
    row: str
    version: int
    bound: bytes = b""

    def __post_init__(self) -> None:
        """Put it together once, for places that are used again."""
        bound = canonical(_DOMAIN, self.table, self.column, self.row, self.version)
        msgspec.structs.force_setattr(self, "bound", bound)


def seal(key: bytes, key_number: int, plaintext: bytes, place: Place) -> bytes:
    """Seal ``plaintext`` under ``key`` for ``place``.

    Args:
        key: 32 bytes.
        key_number: the key's number in its keyring, 0 for a key that is in none.
        plaintext: what to hide; its length shows.
        place: the only place where the result opens.
    """
    return seal_with(_cipher(key), key_number, plaintext, place)


def open_sealed(key: bytes, sealed: bytes, place: Place) -> bytes:
    """Return the plaintext of ``sealed``.

    Raises:
        DecryptionFailed: another key, another place, or damaged.
    """
    return open_with(_cipher(key), sealed, place)


def key_number(sealed: bytes) -> int:
    """Return the number of the key that ``sealed`` claims to be sealed with.

    Raises:
        DecryptionFailed: not a sealed value of a known format.
    """
    if len(sealed) < _SHORTEST or sealed[0] != _FORMAT:
        raise DecryptionFailed("not a sealed value of a known format")
    return int.from_bytes(sealed[1:5], "big")


def seal_with(cipher: AESGCM, number: int, plaintext: bytes, place: Place) -> bytes:
    """Do what :func:`seal` does with a prepared cipher, for keys that are used often."""
    header = _HEADER.pack(_FORMAT, number)
    nonce = os.urandom(_NONCE)
    return header + nonce + cipher.encrypt(nonce, plaintext, header + place.bound)


def open_with(cipher: AESGCM, sealed: bytes, place: Place) -> bytes:
    """Do what :func:`open_sealed` does with a prepared cipher."""
    if len(sealed) < _SHORTEST or sealed[0] != _FORMAT:
        raise DecryptionFailed("not a sealed value of a known format")
    header, nonce, body = sealed[: _HEADER.size], sealed[_HEADER.size : _BODY], sealed[_BODY:]
    try:
        return cipher.decrypt(nonce, body, header + place.bound)
    except InvalidTag:
        raise DecryptionFailed(f"a sealed value of {place.table}.{place.column} does not open") from None


def _cipher(key: bytes) -> AESGCM:
    if len(key) != 32:
        raise ValueError("AES-256-GCM takes a key of 32 bytes")
    return AESGCM(key)
