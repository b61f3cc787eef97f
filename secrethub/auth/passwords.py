"""Passwords, and what is kept instead of them.

Kept is HMAC-SHA256 under a derived key over Argon2id (RFC 9106) of the password: who has only the database
cannot even begin to guess. Parameters are those that OWASP names for 19 MiB; each password keeps its own.
"""

from __future__ import annotations

import os

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from secrethub.crypto.digests import equal, mac
from secrethub.crypto.keyring import Keyring

LONGEST = 1024
"""Characters of a password."""

_SALT = 16
_LENGTH = 32


class Password(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a password. Not secret without the keyring, and shown to nobody.

    Attributes:
        salt: hexadecimal, 16 bytes.
        digest: hexadecimal, 32 bytes.
        memory: KiB.
        passes: over the memory.
        lanes: of the memory.
    """

    salt: str
    digest: str
    memory: int = 19_456
    passes: int = 2
    lanes: int = 1

    def __repr__(self) -> str:
        return "Password()"


STAND_IN = Password(salt="00" * _SALT, digest="00" * _LENGTH)
"""For names that nobody has: it takes as long to check, and no password fits."""


def make_password(keyring: Keyring, password: str) -> Password:
    """Return what is to be kept of a new password. Takes some ten milliseconds and 19 MiB."""
    empty = Password(salt=os.urandom(_SALT).hex(), digest="")
    return msgspec.structs.replace(empty, digest=_digest(keyring, password, empty).hex())


def fits(keyring: Keyring, password: str, kept: Password) -> bool:
    """Tell whether a password is the one that ``kept`` was made of. As slow as making it."""
    found = _digest(keyring, password, kept)
    return equal(found, bytes.fromhex(kept.digest))


def _digest(keyring: Keyring, password: str, kept: Password) -> bytes:
    stretched = Argon2id(
        salt=bytes.fromhex(kept.salt),
        length=_LENGTH,
        iterations=kept.passes,
        lanes=kept.lanes,
        memory_cost=kept.memory,
    ).derive(password.encode())
    return mac(keyring.derived("password"), "password", stretched)
