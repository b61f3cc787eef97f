"""What the ledger shows of values: their shape and keys, never the values themselves.

Every string, number and boolean becomes ``hmac-sha256:<hex>`` under a key that only the cluster has,
so equal values can be found again and none can be guessed without the key. The type takes part:
``1``, ``"1"`` and ``true`` give different masks. Null stays, and so do the keys of objects.

Fields that are not secret may stay readable. They are named by their place from the root
(``"ttl"``, ``"options.cas"``), so a user's secret that happens to have the same key further down is
still masked.

Entries stay small whatever was sent: what lies deeper than :data:`MAX_DEPTH`, or does not fit into
:data:`MAX_SIZE`, is covered by one mask over all of it.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, TypeAlias

import msgspec

MAX_DEPTH = 32
"""Levels of objects and lists that keep their shape."""

MAX_SIZE = 32_768
"""Bytes of JSON that a masked value may take."""

MAX_PLAIN = 1024
"""Characters of a readable string; a longer one is masked."""

_PREFIX = "hmac-sha256:"
_MASK_SIZE = 80
_Plain: TypeAlias = Mapping[str, Any]
_NOTHING_PLAIN: _Plain = {}
_LEAVES = frozenset({str, int, float, bool})

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_WHOLE = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON text, the same text for the same value.

    Keys are sorted, there is no white space, and everything but printable ASCII is escaped, so nothing
    in the text can forge a line or fail to be stored.

    Raises:
        ValueError: not a number (NaN), infinite, or nested too deeply.
        TypeError: a value that JSON cannot express.
    """
    try:
        return _JSON.encode(value).replace("\x7f", "\\u007f")
    except RecursionError:
        raise ValueError("nested too deeply") from None


def mask(value: Any, key: bytes, plain: frozenset[str] = frozenset(), *, size: int = MAX_SIZE) -> Any:
    """Return ``value`` with every leaf masked, in the same shape.

    Args:
        value: decoded JSON: objects, lists and tuples, strings, numbers, booleans, null; byte strings
            and times are leaves too.
        key: the cluster's masking key.
        plain: places that stay readable, as dotted names from the root; elements of a list have the
            place of the list. Only leaves stay readable, objects below are looked at key by key.
        size: bytes of JSON that the result may take; what does not fit becomes one mask.

    Returns:
        Objects, lists, strings and null, and the readable leaves.

    Raises:
        TypeError: a value of another type.
    """
    return _Masking(key, size).value(value, _places(plain) if plain else _NOTHING_PLAIN, 0)


def mask_leaf(value: str | float | bool | bytes | date | None, key: bytes) -> str | None:
    """Return the mask of a single value.

    Raises:
        TypeError: ``value`` is not a leaf.
    """
    return None if value is None else _digest(key, _leaf_bytes(value))


class _Masking:
    """One run over one value, with what is left of the size."""

    __slots__ = ("_key", "_left")

    def __init__(self, key: bytes, size: int) -> None:
        self._key = key
        self._left = size

    def value(self, value: Any, plain: _Plain | None, depth: int) -> Any:
        """Mask ``value``; ``plain`` has the readable places below, None makes this one readable."""
        if value is None:
            return None
        # Most are leaves, and to ask whether one is a mapping takes as long as to mask it.
        if type(value) not in _LEAVES:
            if isinstance(value, Mapping):
                if depth >= MAX_DEPTH or not self._fits(len(value), value):
                    return self._whole(value)
                below = _NOTHING_PLAIN if plain is None else plain
                return {
                    str(name): self.value(item, below.get(name, _NOTHING_PLAIN), depth + 1)
                    for name, item in value.items()
                }
            if isinstance(value, (list, tuple)):
                if depth >= MAX_DEPTH or not self._fits(len(value)):
                    return self._whole(value)
                return [self.value(item, plain, depth + 1) for item in value]
        if plain is None and self._readable(value):
            return value
        return _digest(self._key, _leaf_bytes(value))

    def _fits(self, count: int, names: Mapping[Any, Any] | None = None) -> bool:
        """Take the room for ``count`` masks and their names, if there is so much left."""
        needed = count * _MASK_SIZE
        if names is not None and needed <= self._left:
            needed += sum(_written(str(name)) for name in names)
        return self._take(needed)

    def _take(self, needed: int) -> bool:
        if needed > self._left:
            return False
        self._left -= needed
        return True

    def _readable(self, value: Any) -> bool:
        if isinstance(value, str):
            return len(value) <= MAX_PLAIN and self._take(_written(value))
        return isinstance(value, (bool, int, float)) and abs(value) < 1 << 63

    def _whole(self, value: Any) -> str:
        try:
            encoded = _WHOLE.encode(value)
        except (RecursionError, UnicodeEncodeError):
            # No decoder yields it: deeper than any of them goes, or half of a surrogate pair.
            encoded = type(value).__name__.encode()
        return _digest(self._key, b"j" + encoded)


def _leaf_bytes(value: Any) -> bytes:
    """Encode a leaf with its type, so that leaves of different types never agree."""
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        return b"i" + format(value, "x").encode()
    if isinstance(value, float):
        return b"d" + value.hex().encode()
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, date):
        return b"a" + value.isoformat().encode()
    raise TypeError(f"{type(value).__name__} cannot be masked")


def _written(text: str) -> int:
    """Return how long ``text`` is in canonical JSON, with its quotes and what comes after it."""
    return len(encode_basestring_ascii(text)) + 1


def _digest(key: bytes, message: bytes) -> str:
    return _PREFIX + hmac.digest(key, message, "sha256").hex()


@lru_cache(maxsize=512)
def _places(plain: frozenset[str]) -> _Plain:
    """Turn dotted names into a tree in which None marks a readable place."""
    tree: dict[str, Any] = {}
    for place in sorted(plain):
        names = place.split(".")
        node = tree
        for name in names[:-1]:
            if node.get(name, {}) is None:
                break
            node = node.setdefault(name, {})
        else:
            node[names[-1]] = None
    return tree
