"""Make ``shamir.json``: shares in Vault's format from another implementation.

The shares come from textbook arithmetic over GF(2^8)/0x11B with logarithm tables to the base 3,
and each set is checked with ``pyshamir`` before it is written. Coefficients
are taken from SHA-256, so the file comes out the same every time.

Run it from anywhere: ``python tests/vectors/make_shamir.py``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyshamir

CASES = (
    ("aes", bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"), 5, 3),
    ("zeros", bytes(32), 3, 2),
    ("ones", b"\xff" * 32, 7, 7),
    ("short", b"\x01", 2, 2),
    ("long", bytes(range(64)), 10, 4),
    ("most", bytes(range(32)), 255, 5),
)


def tables() -> tuple[list[int], list[int]]:
    """Powers of 3 and their logarithms."""
    powers, logarithms, value = [0] * 255, [0] * 256, 1
    for exponent in range(255):
        powers[exponent], logarithms[value] = value, exponent
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
    return powers, logarithms


POWERS, LOGARITHMS = tables()


def times(a: int, b: int) -> int:
    """Multiply in GF(2^8)."""
    return POWERS[(LOGARITHMS[a] + LOGARITHMS[b]) % 255] if a and b else 0


def share(name: str, secret: bytes, x: int, threshold: int) -> bytes:
    """The share at ``x``: y bytes, then x."""
    ys = bytearray()
    for index, constant in enumerate(secret):
        y, power = constant, 1
        for degree in range(1, threshold):
            power = times(power, x)
            seed = f"{name}/{index}/{degree}".encode()
            y ^= times(hashlib.sha256(seed).digest()[0], power)
        ys.append(y)
    return bytes(ys) + bytes([x])


def main() -> None:
    """Write the file beside this script."""
    vectors = []
    for name, secret, count, threshold in CASES:
        # 91 has no common divisor with 255, so this visits every place, in no obvious order.
        shares = [share(name, secret, (91 * step) % 255 + 1, threshold) for step in range(count)]
        if bytes(pyshamir.combine([bytearray(one) for one in shares[-threshold:]])) != secret:
            raise SystemExit(f"pyshamir disagrees on {name}")
        vectors.append(
            {
                "name": name,
                "secret": secret.hex(),
                "threshold": threshold,
                "shares": [one.hex() for one in shares],
            }
        )
    target = Path(__file__).with_name("shamir.json")
    target.write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
