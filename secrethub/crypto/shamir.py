"""Shamir's secret sharing over GF(2^8), in the share format of HashiCorp Vault.

Every byte of the secret is the constant term of its own random polynomial over GF(2^8) with the
reduction polynomial x^8 + x^4 + x^3 + x + 1 (0x11B). A share is the polynomials' values at one
non-zero x, followed by that x: 33 bytes for a secret of 32.

The bytes of a secret lie side by side in one integer and are worked on together by shifts and
masks. No table is indexed and no branch is taken by a secret value; how long Python takes for
integers of one width is beyond our control.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from secrethub.errors import InvalidRequest, WrongShare

_MOST = 255


def split(secret: bytes, shares: int, threshold: int) -> list[bytes]:
    """Split ``secret`` so that any ``threshold`` of the ``shares`` restore it and fewer tell nothing.

    Args:
        secret: at least one byte.
        shares: how many to make, up to 255.
        threshold: how many restore the secret; a threshold of 1 makes every share tell it all.

    Raises:
        InvalidRequest: not 1 <= ``threshold`` <= ``shares`` <= 255, or an empty secret.
    """
    if not 1 <= threshold <= shares <= _MOST:
        raise InvalidRequest("shares and threshold must satisfy 1 <= threshold <= shares <= 255")
    if not secret:
        raise InvalidRequest("an empty secret cannot be split")
    size = len(secret)
    # Highest power first. The leading coefficients may be zero: forcing them not to be would tell
    # that a secret is not the one that fewer shares suggest.
    polynomial = [secrets.randbits(8 * size) for _ in range(threshold - 1)]
    polynomial.append(int.from_bytes(secret, "big"))
    places = secrets.SystemRandom().sample(range(1, _MOST + 1), shares)
    return [_evaluate(polynomial, x, size).to_bytes(size, "big") + bytes([x]) for x in places]


def combine(shares: Sequence[bytes]) -> bytes:
    """Restore the secret from ``shares``.

    Too few shares, or shares of different secrets, give a wrong secret without notice: check it.

    Raises:
        InvalidRequest: no share was given.
        WrongShare: a share too short, of another length than the first, with x = 0, or with the x
            of an earlier one.
    """
    if not shares:
        raise InvalidRequest("no share was given")
    size = len(shares[0]) - 1
    places = [share[-1] if share else 0 for share in shares]
    if size < 1 or 0 in places or any(len(share) != size + 1 for share in shares):
        raise WrongShare("the shares do not have one length, or one has no place", "malformed")
    if len(set(places)) != len(places):
        raise WrongShare("two shares have the same place", "duplicate")
    secret = 0
    for share, x in zip(shares, places, strict=True):
        # Lagrange's basis polynomial of x at 0; in this field subtraction is XOR.
        above = below = 1
        for other in places:
            if other != x:
                above = _multiply(above, other, 1)
                below = _multiply(below, other ^ x, 1)
        weight = _multiply(above, _invert(below), 1)
        secret ^= _multiply(int.from_bytes(share[:-1], "big"), weight, size)
    return secret.to_bytes(size, "big")


def _evaluate(polynomial: Sequence[int], x: int, size: int) -> int:
    """Return the value at ``x`` by Horner's rule."""
    value = 0
    for coefficient in polynomial:
        value = _multiply(value, x, size) ^ coefficient
    return value


def _multiply(vector: int, factor: int, size: int) -> int:
    """Multiply each of the ``size`` bytes of ``vector`` by the byte ``factor`` in GF(2^8)."""
    ones = int.from_bytes(b"\x01" * size, "big")
    low = ones * 0x7F
    product = 0
    for bit in range(8):
        product ^= vector & -((factor >> bit) & 1)
        carries = (vector >> 7) & ones
        vector = ((vector & low) << 1) ^ (carries * 0x1B)
    return product


def _invert(value: int) -> int:
    """Return the inverse of a non-zero byte: value^254, because value^255 = 1."""
    result = value
    for _ in range(6):
        result = _multiply(_multiply(result, result, 1), value, 1)
    return _multiply(result, result, 1)
