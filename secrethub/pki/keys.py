"""Asymmetric keys of certificates: the accepted kinds, generation, PEM and DER forms, digests.

Generation of RSA keys takes from 12 ms to more than a second; callers on an event loop run
:func:`generate` in a thread. Everything else here is fast.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from secrethub.errors import InvalidRequest, Misconfigured

KeyType = Literal["ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-4096"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

RSA_SMALLEST = 2048
RSA_LARGEST = 4096
"""Above this a verification costs more than any client needs to be able to ask for."""
RSA_EXPONENT = 65537


def generate(key_type: KeyType) -> PrivateKey:
    """Make a fresh key. Slow for RSA: run it outside an event loop.

    Raises:
        Misconfigured: ``key_type`` is none of ours.
    """
    if key_type == "ecdsa-p256":
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == "ecdsa-p384":
        return ec.generate_private_key(ec.SECP384R1())
    if key_type == "rsa-2048":
        return rsa.generate_private_key(RSA_EXPONENT, 2048)
    if key_type == "rsa-4096":
        return rsa.generate_private_key(RSA_EXPONENT, 4096)
    raise Misconfigured(f"unknown key type {key_type!r}")


def check_strength(public: object) -> PublicKey:
    """Return ``public`` if its kind and size are accepted.

    Accepted are RSA from 2048 to 4096 bits with the exponent 65537, and ECDSA on P-256 and P-384.

    Raises:
        InvalidRequest: any other key.
    """
    if isinstance(public, rsa.RSAPublicKey):
        if not RSA_SMALLEST <= public.key_size <= RSA_LARGEST:
            raise InvalidRequest(f"RSA keys must have {RSA_SMALLEST} to {RSA_LARGEST} bits")
        if public.public_numbers().e != RSA_EXPONENT:
            raise InvalidRequest(f"RSA keys must have the exponent {RSA_EXPONENT}")
        return public
    if isinstance(public, ec.EllipticCurvePublicKey):
        if not isinstance(public.curve, ec.SECP256R1 | ec.SECP384R1):
            raise InvalidRequest("elliptic curve keys must be on P-256 or P-384")
        return public
    raise InvalidRequest("keys must be RSA, or ECDSA on P-256 or P-384")


def describe(public: PublicKey) -> str:
    """Return the kind of a key in the spelling of :data:`KeyType`, e.g. ``rsa-3072``."""
    if isinstance(public, rsa.RSAPublicKey):
        return f"rsa-{public.key_size}"
    return "ecdsa-p256" if isinstance(public.curve, ec.SECP256R1) else "ecdsa-p384"


def signing_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """Return the hash that matches the strength of a signing key."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return hashes.SHA384()
    return hashes.SHA256()


def key_digest(public: PublicKey) -> str:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo, 64 hexadecimal digits."""
    encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def private_der(key: PrivateKey) -> bytes:
    """Return the key as unencrypted PKCS#8 DER: only to be sealed."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def private_pem(key: PrivateKey) -> bytes:
    """Return the key as unencrypted PEM in the format Vault answers (PKCS#1 or SEC 1)."""
    return private_bytes(key, serialization.Encoding.PEM)


def private_bytes(key: PrivateKey, encoding: serialization.Encoding, *, pkcs8: bool = False) -> bytes:
    """Return the key unencrypted, in PKCS#1 or SEC 1 by its kind, or in PKCS#8."""
    form = serialization.PrivateFormat.PKCS8 if pkcs8 else serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def load_private_der(encoded: bytes) -> PrivateKey:
    """Read what :func:`private_der` wrote and what came out of its seal unchanged.

    An RSA key's primes are not tested again; that takes a hundred times as long as a signature.

    Raises:
        InvalidRequest: it is not such a key.
    """
    try:
        key = serialization.load_der_private_key(encoded, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise InvalidRequest("not a private key") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidRequest("not an RSA or ECDSA private key")
    return key
