"""Hashes, MACs and derived keys, each separated from the others by its domain.

Whatever is hashed or authenticated is first brought into one byte string by :func:`canonical`, so
that no two different lists of parts share a digest. The domain is always the first part: a digest
made for one purpose is never valid for another.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Part: TypeAlias = "bytes | str | int | bool | Sequence[Part] | None"

_SCALARS = frozenset({bytes, str, int, bool, type(None)})
_encode = msgspec.msgpack.Encoder().encode


def canonical(*parts: Part) -> bytes:
    """Encode ``parts`` so that different parts never give the same bytes.

    The encoding is MessagePack with every length and integer in its shortest form: each item says
    its type and its length, so it can be read back, and what can be read back is injective. Lists
    and tuples are the same sequence; everything else keeps its type (``1``, ``True``, ``"1"`` and
    ``b"1"`` all differ).

    Args:
        parts: values of exactly these types: bytes, str, int (-2^63 to 2^64-1), bool, None, and
            lists and tuples of them.

    Raises:
        TypeError: a part of another type, subclasses included.
        OverflowError: an integer beyond 64 bits.
        UnicodeEncodeError: text with a lone surrogate, which UTF-8 cannot hold.
    """
    if not _SCALARS.issuperset(map(type, parts)):
        _check(parts)
    return _encode(parts)


def _check(parts: Sequence[Part]) -> None:
    for part in parts:
        kind = type(part)
        if kind is list or kind is tuple:
            _check(part)  # type: ignore[arg-type]
        elif kind not in _SCALARS:
            raise TypeError(f"{kind.__name__} has no canonical encoding")


def sha256(domain: str, *parts: Part) -> bytes:
    """Return the SHA-256 of ``parts`` in ``domain`` (32 bytes)."""
    if not _SCALARS.issuperset(map(type, parts)):
        _check(parts)
    return hashlib.sha256(_encode((domain, *parts))).digest()


def mac(key: bytes, domain: str, *parts: Part) -> bytes:
    """Return the HMAC-SHA256 of ``parts`` in ``domain`` under ``key`` (32 bytes, RFC 2104)."""
    if not _SCALARS.issuperset(map(type, parts)):
        _check(parts)
    return hmac.digest(key, _encode((domain, *parts)), "sha256")


def equal(a: bytes, b: bytes) -> bool:
    """Compare in a time that depends on the lengths alone."""
    return hmac.compare_digest(a, b)


def derive(key: bytes, label: str, length: int = 32) -> bytes:
    """Derive a key for one purpose from ``key`` (HKDF-SHA256, RFC 5869, without salt).

    Args:
        key: uniformly random key material, 32 bytes or more.
        label: the purpose; different labels give independent keys.
        length: bytes wanted, up to 8,160.
    """
    context = canonical("secrethub/derive/v1", label, length)
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=context).derive(key)
