"""PKCS#10 requests (RFC 2986): reading a stranger's, and making an agent's.

What is believed of a stranger's request is its public key, because the request is signed with the
private one, and the challenge password (RFC 2985, 5.4.1) that carries Core's nonce. Its subject and
the extensions it asks for are never read: Core alone decides what a certificate says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AttributeOID

from secrethub.errors import InvalidRequest
from secrethub.pki.keys import PrivateKey, PublicKey, check_strength, key_digest, signing_hash

LONGEST = 16_384
"""Characters of PEM; an RSA-4096 request has about 1,700."""
LONGEST_CHALLENGE = 255
"""pkcs-9-ub-challengePassword of RFC 2985."""

_PEM = re.compile(
    r"\s*-----BEGIN ((?:NEW )?CERTIFICATE REQUEST)-----[A-Za-z0-9+/=\s]+-----END \1-----\s*", re.ASCII
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningRequest:
    """What is believed of a request, after proof of possession.

    Attributes:
        public_key: the key to certify.
        key_digest: SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
        challenge: the challenge password, or None when the request has none.
    """

    public_key: PublicKey
    key_digest: str
    challenge: bytes | None = field(repr=False)


def parse_request(pem: str) -> SigningRequest:
    """Read a request and check that its maker holds the private key.

    Raises:
        InvalidRequest: not exactly one PEM request, too long, a key or hash that is too weak, a
            self signature that does not hold, or more than one challenge password.
    """
    if len(pem) > LONGEST:
        raise InvalidRequest(f"csr is longer than {LONGEST} characters")
    if not pem.isascii() or _PEM.fullmatch(pem) is None:
        raise InvalidRequest("csr must be one PEM block of type CERTIFICATE REQUEST")
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        public = check_strength(request.public_key())
        digest = request.signature_hash_algorithm
        held = request.is_signature_valid
        challenge = _challenge(request)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise InvalidRequest("csr cannot be read") from exc
    if not isinstance(digest, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise InvalidRequest("csr must be signed with SHA-256, SHA-384 or SHA-512")
    if not held:
        raise InvalidRequest("csr is not signed with the key it names")
    return SigningRequest(public_key=public, key_digest=key_digest(public), challenge=challenge)


def make_request(key: PrivateKey, nonce: str | None = None) -> str:
    """Make a request for ``key`` in PEM, with ``nonce`` as its challenge password.

    The subject is left empty: Core decides it.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if nonce is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, nonce.encode("ascii"))
    request = builder.sign(key, signing_hash(key))
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _challenge(request: x509.CertificateSigningRequest) -> bytes | None:
    found = [a.value for a in request.attributes if a.oid == AttributeOID.CHALLENGE_PASSWORD]
    if len(found) > 1:
        raise InvalidRequest("csr has more than one challenge password")
    if found and len(found[0]) > LONGEST_CHALLENGE:
        raise InvalidRequest(f"the challenge password is longer than {LONGEST_CHALLENGE} bytes")
    return found[0] if found else None
