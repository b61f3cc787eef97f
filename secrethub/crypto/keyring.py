"""The keyring: numbered data keys that seal values, and one secret from which lookup keys are derived.

The newest data key seals, all of them open. Rotation adds a data key and keeps the base secret, so
token digests and row MACs stay valid. Gateways hold the keyring, never the root key that wraps it.

A process that seals for others learns of a new key first (:meth:`Keyring.learn`) and seals with it
later (:meth:`Keyring.seal_with`), so that by then the others have learned of it as well. It counts:
one key seals at most 2^32 values (NIST SP 800-38D, random nonces).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secrethub.crypto import aead
from secrethub.crypto.aead import Place
from secrethub.crypto.digests import derive, equal
from secrethub.crypto.prepared_mac import PreparedMac
from secrethub.errors import DecryptionFailed, Sealed, Unavailable, UnknownKey
from secrethub.sensitive import wipe

SPREAD_SECONDS = 3
"""Age at which a new data key begins to seal: by then every process has learned of it. One that has
not, because it stood still, fetches the keyring when it meets such a value (``UnknownKey``)."""

_FORMAT = 2
_SIZE = 32
_ENTRY = struct.Struct(">I32sQ")
_LAST = 2**32 - 1
_MISSING = 1000


class Keyring:
    """Data keys and derived keys. Hidden in ``repr``, refuses pickling.

    A keyring only ever learns of younger data keys; :meth:`rotated` makes another. After :meth:`wipe`
    every use raises :class:`~secrethub.errors.Sealed`.
    """

    __slots__ = (
        "_base",
        "_ciphers",
        "_derived",
        "_keys",
        "_left",
        "_macs",
        "_made_at",
        "_missing",
        "_newest",
        "_sealing",
        "_wiped",
    )

    def __init__(
        self, base: bytes, keys: Mapping[int, bytes], made_at: Mapping[int, int] | None = None
    ) -> None:
        """Hold keys; the newest one seals, without counting.

        Args:
            base: 32 bytes.
            keys: data keys of 32 bytes by their numbers.
            made_at: when each of them was made, in seconds since the epoch; 0 where that is not known.
        """
        if len(base) != _SIZE or not keys:
            raise ValueError("a keyring has a base secret of 32 bytes and at least one data key")
        if any(len(key) != _SIZE or not 0 < number <= _LAST for number, key in keys.items()):
            raise ValueError("data keys have 32 bytes and are numbered from 1")
        self._base = bytearray(base)
        self._keys = {number: bytearray(keys[number]) for number in sorted(keys)}
        self._made_at = {number: (made_at or {}).get(number, 0) for number in self._keys}
        self._ciphers = {number: AESGCM(key) for number, key in self._keys.items()}
        self._derived: dict[str, bytes] = {}
        self._macs: dict[str, PreparedMac] = {}
        self._newest = self._sealing = max(keys)
        self._left: int | None = None
        self._missing: set[int] = set()
        self._wiped = False

    @classmethod
    def generate(cls, made_at: int = 0) -> Keyring:
        """Make a keyring of one random data key, number 1, and a random base secret."""
        return cls(os.urandom(_SIZE), {1: os.urandom(_SIZE)}, {1: made_at})

    @classmethod
    def load(cls, exported: bytes) -> Keyring:
        """Read back what :meth:`export` wrote.

        Raises:
            DecryptionFailed: not an exported keyring.
        """
        base, rest = exported[1 : 1 + _SIZE], exported[1 + _SIZE :]
        if exported[:1] != bytes([_FORMAT]) or not rest or len(rest) % _ENTRY.size:
            raise DecryptionFailed("not an exported keyring")
        entries = list(_ENTRY.iter_unpack(rest))
        keys = {number: key for number, key, _ in entries}
        if len(keys) != len(entries) or 0 in keys:
            raise DecryptionFailed("an exported keyring with impossible key numbers")
        return cls(base, keys, {number: made_at for number, _, made_at in entries})

    def export(self) -> bytes:
        """Return the keys themselves, only to be sealed at once.

        Layout: ``0x02`` ‖ base secret (32) ‖ for each key, ascending: number (4, big-endian) ‖ key (32)
        ‖ when it was made, in seconds since the epoch (8, big-endian).
        """
        base, keys = self._copy()
        entries = (_ENTRY.pack(number, key, self._made_at[number]) for number, key in keys.items())
        return bytes([_FORMAT]) + base + b"".join(entries)

    def rotated(self, made_at: int = 0) -> Keyring:
        """Return a keyring with one more data key, made at ``made_at``, which seals from now on."""
        base, keys = self._copy()
        number = self._newest + 1
        return Keyring(base, {**keys, number: os.urandom(_SIZE)}, {**self._made_at, number: made_at})

    @property
    def newest(self) -> int:
        """Number of the newest data key."""
        self._require()
        return self._newest

    @property
    def sealing(self) -> int:
        """Number of the data key that seals: the newest, or the one before until that is known everywhere."""
        self._require()
        return self._sealing

    @property
    def left(self) -> int | None:
        """How many more values may be sealed; None for any number."""
        return self._left

    def made_at(self, number: int) -> int:
        """Return when a data key was made, in seconds since the epoch."""
        return self._made_at[number]

    def learn(self, younger: Keyring) -> None:
        """Take over the data keys that are only in ``younger``; what seals stays.

        Raises:
            DecryptionFailed: it is not a later state of this keyring.
        """
        base, keys = younger._copy()
        own, known = self._copy()
        if not equal(base, own) or any(keys.get(number) != key for number, key in known.items()):
            raise DecryptionFailed("not a later state of this keyring")
        fresh = {number: bytearray(key) for number, key in keys.items() if number not in known}
        self._made_at.update({number: younger._made_at[number] for number in fresh})
        self._keys = {**self._keys, **fresh}
        self._ciphers = {**self._ciphers, **{number: AESGCM(key) for number, key in fresh.items()}}
        self._newest = max(self._keys)
        self._missing.clear()

    def expects(self, number: int) -> bool:
        """Tell whether ``number`` may be that of a younger data key."""
        return number > self._newest and number not in self._missing

    def rule_out(self, number: int) -> None:
        """Remember that the cluster has no data key ``number``: the value that names it was damaged."""
        if len(self._missing) >= _MISSING:
            self._missing.clear()
        self._missing.add(number)

    def due(self, now: float, spread: float = SPREAD_SECONDS) -> int:
        """Return the number of the data key that should seal at ``now``, in seconds since the epoch.

        Args:
            now: the time.
            spread: age in seconds at which a key begins to seal.
        """
        old_enough = [number for number, made_at in self._made_at.items() if made_at + spread <= now]
        return max(old_enough, default=min(self._made_at))

    def seal_with(self, number: int, uses: int) -> None:
        """Seal with data key ``number``, from now on, ``uses`` times more than allowed already.

        Raises:
            KeyError: there is no such key.
        """
        self._require()
        if number not in self._keys:
            raise KeyError(number)
        kept = self._left if number == self._sealing else None
        self._sealing, self._left = number, uses + (kept or 0)

    def seal(self, plaintext: bytes, place: Place) -> bytes:
        """Seal ``plaintext`` for ``place``.

        Raises:
            Unavailable: the data key must not be used so often, before more uses are reserved.
        """
        number = self._sealing
        cipher = self._ciphers.get(number)
        if cipher is None:
            raise Sealed
        if self._left is not None:
            if self._left < 1:
                raise Unavailable("no more uses of the data key are reserved")
            self._left -= 1
        return aead.seal_with(cipher, number, plaintext, place)

    def open(self, sealed: bytes, place: Place) -> bytes:
        """Return the plaintext of ``sealed``.

        Raises:
            UnknownKey: sealed with a data key that is younger than this keyring.
            DecryptionFailed: another place, damaged, or a data key that is none of the cluster's.
        """
        ciphers = self._ciphers
        if not ciphers:
            raise Sealed
        cipher = ciphers.get(int.from_bytes(sealed[1:5], "big"))
        if cipher is None:
            number = aead.key_number(sealed)
            if self.expects(number):
                raise UnknownKey(f"data key {number} is not known here yet", number)
            raise DecryptionFailed(f"data key {number} is not in the keyring")
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
