"""The keyring: numbered data keys that seal values, and one secret from which lookup keys are derived.

The newest data key seals, all of them open. Rotation adds a data key and keeps the base secret, so
token digests and row MACs stay valid. Gateways hold the keyring, never the root key that wraps it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secrethub.crypto import aead
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import derive
from secrethub.crypto.prepared_mac import PreparedMac
from secrethub.errors import DecryptionFailed, Sealed
from secrethub.sensitive import wipe

_FORMAT = 1
_SIZE = 32
_ENTRY = struct.Struct(">I32s")
_LAST = 2**32 - 1


class Keyring:
    """Data keys and derived keys. Hidden in ``repr``, refuses pickling.

    A keyring does not change; :meth:`rotated` makes another. After :meth:`wipe` every use raises
    :class:`~secrethub.errors.Sealed`.
    """

    __slots__ = ("_base", "_ciphers", "_derived", "_keys", "_macs", "_newest", "_wiped")

    def __init__(self, base: bytes, keys: Mapping[int, bytes]) -> None:
        if len(base) != _SIZE or not keys:
            raise ValueError("a keyring has a base secret of 32 bytes and at least one data key")
        if any(len(key) != _SIZE or not 0 < number <= _LAST for number, key in keys.items()):
            raise ValueError("data keys have 32 bytes and are numbered from 1")
        self._base = bytearray(base)
        self._keys = {number: bytearray(keys[number]) for number in sorted(keys)}
        self._ciphers = {number: AESGCM(key) for number, key in self._keys.items()}
        self._derived: dict[str, bytes] = {}
        self._macs: dict[str, PreparedMac] = {}
        self._newest = max(keys)
        self._wiped = False

    @classmethod
    def generate(cls) -> Keyring:
        """Make a keyring of one random data key, number 1, and a random base secret."""
        return cls(os.urandom(_SIZE), {1: os.urandom(_SIZE)})

    @classmethod
    def load(cls, exported: bytes) -> Keyring:
        """Read back what :meth:`export` wrote.

        Raises:
            DecryptionFailed: not an exported keyring.
        """
        base, rest = exported[1 : 1 + _SIZE], exported[1 + _SIZE :]
        if exported[:1] != bytes([_FORMAT]) or not rest or len(rest) % _ENTRY.size:
            raise DecryptionFailed("not an exported keyring")
        keys = dict(_ENTRY.iter_unpack(rest))
        if len(keys) * _ENTRY.size != len(rest) or 0 in keys:
            raise DecryptionFailed("an exported keyring with impossible key numbers")
        return cls(base, keys)

    def export(self) -> bytes:
        """Return the keys themselves, only to be sealed at once.

        Layout: ``0x01`` ‖ base secret (32) ‖ for each key, ascending: number (4, big-endian) ‖ key (32).
        """
        base, keys = self._copy()
        return bytes([_FORMAT]) + base + b"".join(_ENTRY.pack(*entry) for entry in keys.items())

    def rotated(self) -> Keyring:
        """Return a keyring with one more data key, which seals from now on."""
        base, keys = self._copy()
        return Keyring(base, {**keys, self._newest + 1: os.urandom(_SIZE)})

    @property
    def newest(self) -> int:
        """Number of the data key that seals."""
        self._require()
        return self._newest

    def seal(self, plaintext: bytes, place: Place) -> bytes:
        """Seal ``plaintext`` for ``place`` under the newest data key."""
        cipher = self._ciphers.get(self._newest)
        if cipher is None:
            raise Sealed
        return aead.seal_with(cipher, self._newest, plaintext, place)

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Return the plaintext of ``sealed``.

        Raises:
            DecryptionFailed: an unknown key number, another place, or damaged.
        """
        ciphers = self._ciphers
        if not ciphers:
            raise Sealed
        cipher = ciphers.get(int.from_bytes(sealed[1:5], "big"))
        if cipher is None:
            raise DecryptionFailed(f"data key {aead.key_number(sealed)} is not in the keyring")
        return aead.open_with(cipher, sealed, place)

    def derived(self, purpose: str) -> bytes:
        """Return the 32-byte key for ``purpose``; rotation does not change it."""
        cache = self._derived
        key = cache.get(purpose)
        if key is None:
            base, _ = self._copy()
            key = cache[purpose] = derive(base, f"secrethub/keyring/{purpose}")
        return key

    def mac(self, purpose: str) -> PreparedMac:
        """Return the key for ``purpose`` as what authenticates with it, for purposes of every request."""
        prepared = self._macs.get(purpose)
        if prepared is None:
            prepared = self._macs[purpose] = PreparedMac(self.derived(purpose))
        return prepared

    def wipe(self) -> None:
        """Zero and drop the keys, as far as Python lets us."""
        self._wiped = True
        self._ciphers = {}
        self._derived = {}
        self._macs = {}
        keys, self._keys = self._keys, {}
        for buffer in (self._base, *keys.values()):
            wipe(buffer)

    def _copy(self) -> tuple[bytes, dict[int, bytes]]:
        # Copied before the question is asked: a wipe in another thread may leave zeros, and zeros
        # must never be taken for a key.
        base, keys = bytes(self._base), {number: bytes(key) for number, key in self._keys.items()}
        self._require()
        return base, keys

    def _require(self) -> None:
        if self._wiped:
            raise Sealed

    def __repr__(self) -> str:
        return "Keyring(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyring is not pickled; seal it to its receiver instead")


def wrap(root_key: bytes, keyring: Keyring, cluster_id: str, revision: int) -> bytes:
    """Seal ``keyring`` under the root key, for this cluster and keyring revision only."""
    return aead.seal(_wrapping_key(root_key), 0, keyring.export(), _place(cluster_id, revision))


def unwrap(root_key: bytes, wrapped: bytes, cluster_id: str, revision: int) -> Keyring:
    """Open what :func:`wrap` sealed.

    Raises:
        DecryptionFailed: another root key, cluster or revision, or damaged.
    """
    return Keyring.load(aead.open_sealed(_wrapping_key(root_key), wrapped, _place(cluster_id, revision)))


def _wrapping_key(root_key: bytes) -> bytes:
    if len(root_key) != _SIZE:
        raise ValueError("the root key has 32 bytes")
    return derive(root_key, "secrethub/root/keyring")


def _place(cluster_id: str, revision: int) -> Place:
    return Place(table="cluster", column="wrapped_keyring", row=cluster_id, version=revision)
