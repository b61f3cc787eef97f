"""Make ``formats.json``: what SecretHub's own byte formats look like.

Everything kept in a database or shared between versions is spelled out here from its description,
with the standard library, bare AES-GCM and bare HPKE, without SecretHub's code. A test that no longer meets
these values means that older clusters cannot be read any more.

Run it from anywhere: ``python tests/vectors/make_formats.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = bytes(range(0xA0, 0xAC))
Part = Any


def message_pack(value: Part) -> bytes:
    """Encode ``value`` as MessagePack in shortest form, as far as the vectors need it."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, bytes):
        return _sized(len(value), (0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, str):
        data = value.encode()
        head = bytes([0xA0 | len(data)]) if len(data) < 32 else _sized(len(data), (0xD9, 0xDA, 0xDB))
        return head + data
    head = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
    return head + b"".join(message_pack(item) for item in value)


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack(">b", value)
    unsigned = ((0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"))
    signed = ((0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q"))
    for tag, form in unsigned if value >= 0 else signed:
        try:
            return bytes([tag]) + struct.pack(form, value)
        except struct.error:
            continue
    raise OverflowError(value)


def _sized(length: int, tags: tuple[int, int, int]) -> bytes:
    for tag, form, limit in zip(tags, (">B", ">H", ">I"), (1 << 8, 1 << 16, 1 << 32), strict=True):
        if length < limit:
            return bytes([tag]) + struct.pack(form, length)
    raise OverflowError(length)


def hkdf(key: bytes, label: str, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    prk = hmac.digest(bytes(32), key, "sha256")
    info = message_pack(["secrethub/derive/v1", label, length])
    made = block = b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([number]), "sha256")
        made += block
    return made[:length]


def sealed(key: bytes, number: int, plaintext: bytes, place: tuple[str, str, str, int]) -> bytes:
    """A sealed value with a fixed nonce."""
    header = b"\x01" + number.to_bytes(4, "big")
    bound = header + message_pack(["secrethub/sealed/v1", *place])
    return header + NONCE + AESGCM(key).encrypt(NONCE, plaintext, bound)


def tagged(value: Part) -> Part:
    """Write ``value`` in JSON so that bytes can be told from text."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return [tagged(item) for item in value] if isinstance(value, list) else value


def digests() -> list[dict[str, Part]]:
    """Lists of parts with their encoding, digest and MAC."""
    key = bytes(range(32))
    cases: list[list[Part]] = [
        [],
        ["", b"", None, False, True, 0],
        [1, "1", b"1", [1], [[1]], []],
        [127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1],
        [-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)],
        ["tokens", "a" * 31, "b" * 32, "c" * 256, "Zürich"],
        [b"d" * 255, b"e" * 256, [None] * 15, [True] * 16],
    ]
    return [
        {
            "parts": tagged(parts),
            "canonical": message_pack(parts).hex(),
            "sha256": hashlib.sha256(message_pack(["vectors/v1", *parts])).hexdigest(),
            "mac": hmac.digest(key, message_pack(["vectors/v1", *parts]), "sha256").hex(),
            "mac_key": key.hex(),
        }
        for parts in cases
    ]


def keyring() -> dict[str, Part]:
    """A keyring with two data keys: exported, wrapped, what it sealed and derived."""
    base, first, second = (bytes([value]) * 32 for value in (0x11, 0x22, 0x33))
    root, cluster, revision = bytes([0x44]) * 32, "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10", 7
    entries = ((1, first, 1_764_000_000), (2, second, 1_764_086_400))
    exported = b"\x02" + base + b"".join(struct.pack(">I32sQ", *entry) for entry in entries)
    place = ("cluster", "wrapped_keyring", cluster, revision)
    value_place = ("kv_versions", "data", "secret/prod/db", 3)
    return {
        "exported": exported.hex(),
        "root_key": root.hex(),
        "cluster_id": cluster,
        "revision": revision,
        "wrapped": sealed(hkdf(root, "secrethub/root/keyring"), 0, exported, place).hex(),
        "place": value_place,
        "plaintext": b'{"password":"canary"}'.hex(),
        "sealed": [
            sealed(key, number, b'{"password":"canary"}', value_place).hex()
            for number, key in ((1, first), (2, second))
        ],
        "derived": {
            purpose: hkdf(base, f"secrethub/keyring/{purpose}").hex() for purpose in ("token", "audit-sign")
        },
    }


def slot() -> dict[str, Part]:
    """A slot with one share, so that its secret is the share without its last byte.

    What is sealed to a public key is another text each time; any of them opens.
    """
    secret, root, x = bytes(range(32)), bytes([0x55]) * 32, b"\x2a"
    cluster, slot_id = "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10", "0b0e8a6f-6a2f-4f4f-9d0c-0d9e3a5b7c21"
    mlkem = MLKEM768PrivateKey.from_seed_bytes(hkdf(secret, "secrethub/hybrid/ml-kem-768", 64)).public_key()
    x25519 = X25519PrivateKey.from_private_bytes(hkdf(secret, "secrethub/hybrid/x25519")).public_key()
    public = mlkem.public_bytes_raw() + x25519.public_bytes_raw()
    digest = hashlib.sha256(message_pack(["secrethub/share/v1", slot_id, x, secret])).digest()
    described: list[Part] = ["shamir", cluster, slot_id, public, 1, 1, [digest], True]
    info = hashlib.sha256(message_pack(["secrethub/slot/v1", *described])).digest()
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    wrapped = suite.encrypt(root, hpke.MLKEM768X25519PublicKey(mlkem, x25519), info)
    row = message_pack(["secrethub/slot-row/v1", *described, False, wrapped])
    return {
        "slot_id": slot_id,
        "cluster_id": cluster,
        "share": (secret + x).hex(),
        "share_digest": digest.hex(),
        "public": public.hex(),
        "wrapped_root": wrapped.hex(),
        "root_key": root.hex(),
        "mac": hmac.digest(hkdf(root, "secrethub/root/slots"), row, "sha256").hex(),
    }


def main() -> None:
    """Write the file beside this script."""
    vectors = {"digests": digests(), "keyring": keyring(), "slot": slot()}
    target = Path(__file__).with_name("formats.json")
    target.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
