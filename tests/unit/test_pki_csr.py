"""Signing requests: what is believed of them, and which are refused."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest, Misconfigured
from secrethub.pki import csr, keys

NONCE = "rN6d3vT2hQ0wq8ZJ5m1xLQ"


def _pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("key_type", ["ecdsa-p256", "ecdsa-p384", "rsa-2048"])
def test_a_request_of_ours_is_read_back(key_type: keys.KeyType) -> None:
    """A request carries its key and nonce to the other side, for every kind of key."""
    key = keys.generate(key_type)
    request = csr.parse_request(csr.make_request(key, NONCE))
    assert request.public_key == key.public_key()
    assert request.key_digest == keys.key_digest(key.public_key())
    assert keys.describe(request.public_key) == key_type
    assert request.challenge == NONCE.encode()


def test_a_request_without_challenge_has_none() -> None:
    """A missing challenge is not an empty one."""
    assert csr.parse_request(csr.make_request(keys.generate("ecdsa-p256"))).challenge is None


def test_an_empty_challenge_is_not_a_missing_one() -> None:
    """An empty challenge is read as it is."""
    assert csr.parse_request(csr.make_request(keys.generate("ecdsa-p256"), "")).challenge == b""


def test_the_challenge_is_hidden_in_repr() -> None:
    """A request that is logged does not show the nonce."""
    request = csr.parse_request(csr.make_request(keys.generate("ecdsa-p256"), NONCE))
    assert NONCE not in repr(request)


def test_a_request_signed_with_another_key_is_refused() -> None:
    """Without the private key there is no certificate: a spliced public key does not verify."""
    victim, attacker = keys.generate("ecdsa-p256"), keys.generate("ecdsa-p256")
    theirs = base64.b64decode("".join(csr.make_request(attacker, NONCE).splitlines()[1:-1]))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    forged = theirs.replace(
        attacker.public_key().public_bytes(serialization.Encoding.DER, spki),
        victim.public_key().public_bytes(serialization.Encoding.DER, spki),
    )
    body = base64.b64encode(forged).decode()
    with pytest.raises(InvalidRequest, match="not signed with the key"):
        csr.parse_request(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")


def test_what_a_request_says_of_itself_is_not_read() -> None:
    """Subject, alternative names and the wish to be an authority have no place in the result."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "core.example.com")]))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("core.example.com"),
                    x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")),
                    x509.UniformResourceIdentifier("secrethub://other/gateway/n"),
                ]
            ),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    read = csr.parse_request(_pem(request))
    assert set(read.__slots__) == {"public_key", "key_digest", "challenge"}
    assert read.public_key == key.public_key()


def _signed(key: object, digest: hashes.HashAlgorithm | None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return _pem(builder.sign(key, digest))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(lambda: _signed(rsa.generate_private_key(65537, 1024), hashes.SHA256()), id="rsa-1024"),
        pytest.param(lambda: _signed(rsa.generate_private_key(3, 2048), hashes.SHA256()), id="rsa-e3"),
        pytest.param(
            lambda: _signed(ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()), id="secp256k1"
        ),
        pytest.param(lambda: _signed(ec.generate_private_key(ec.SECP521R1()), hashes.SHA512()), id="p-521"),
        pytest.param(lambda: _signed(ed25519.Ed25519PrivateKey.generate(), None), id="ed25519"),
        pytest.param(lambda: _signed(dsa.generate_private_key(2048), hashes.SHA256()), id="dsa"),
        pytest.param(lambda: _signed(ec.generate_private_key(ec.SECP256R1()), hashes.SHA224()), id="sha-224"),
    ],
)
def test_weak_keys_and_hashes_are_refused(pem: object) -> None:
    """RSA below 2048 bits, odd exponents, other curves, other algorithms and weak hashes are refused."""
    assert callable(pem)
    with pytest.raises(InvalidRequest):
        csr.parse_request(pem())


def test_two_challenges_are_refused() -> None:
    """A request cannot carry one challenge for one reader and another for the next."""
    key = ec.generate_private_key(ec.SECP256R1())
    one = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"bbbbbbbb")
        .add_attribute(AttributeOID.UNSTRUCTURED_NAME, b"aaaaaaaa")
        .sign(key, hashes.SHA256())
    )
    der = one.public_bytes(serialization.Encoding.DER)
    challenge = bytes.fromhex("06092a864886f70d010907")
    unstructured = bytes.fromhex("06092a864886f70d010902")
    body = base64.b64encode(der.replace(unstructured, challenge)).decode()
    with pytest.raises(InvalidRequest, match="more than one"):
        csr.parse_request(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")


def test_a_long_challenge_is_refused() -> None:
    """A challenge above the standard's bound is refused."""
    with pytest.raises(InvalidRequest):
        csr.parse_request(csr.make_request(keys.generate("ecdsa-p256"), "n" * 256))


def test_exactly_one_block_is_read() -> None:
    """Two requests, a request with a key beside it, and text around it are refused."""
    good = csr.make_request(keys.generate("ecdsa-p256"), NONCE)
    csr.parse_request("\n" + good + "\n")
    for bad in (
        good + good,
        "comment\n" + good,
        good + "comment",
        good + keys.private_pem(keys.generate("ecdsa-p256")).decode(),
        good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        good.replace("END CERTIFICATE", "END NEW CERTIFICATE"),
        good[:-40],
        "",
        "A" * 20_000,
    ):
        with pytest.raises(InvalidRequest):
            csr.parse_request(bad)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_cleanly(body: bytes) -> None:
    """Whatever stands in the PEM block, the answer is InvalidRequest and nothing else."""
    pem = base64.b64encode(body).decode()
    with pytest.raises(InvalidRequest):
        csr.parse_request(f"-----BEGIN CERTIFICATE REQUEST-----\n{pem}\n-----END CERTIFICATE REQUEST-----\n")


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=255))
def test_a_flipped_bit_never_passes(position: int, flip: int) -> None:
    """A request changed anywhere is refused, or at least certifies no other key."""
    der = bytearray(_REQUEST)
    der[position % len(der)] ^= flip
    body = base64.b64encode(der).decode()
    try:
        read = csr.parse_request(
            f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
        )
    except InvalidRequest:
        return
    assert (read.key_digest, read.challenge) == _EXPECTED


_KEY = keys.generate("ecdsa-p256")
_REQUEST = base64.b64decode("".join(csr.make_request(_KEY, NONCE).splitlines()[1:-1]))
_EXPECTED = (keys.key_digest(_KEY.public_key()), NONCE.encode())


def test_private_keys_survive_their_sealed_form() -> None:
    """A key's DER form reads back as the same key; other bytes are refused."""
    key = keys.generate("ecdsa-p384")
    assert keys.load_private_der(keys.private_der(key)).public_key() == key.public_key()
    with pytest.raises(InvalidRequest):
        keys.load_private_der(b"nothing")
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InvalidRequest):
        keys.load_private_der(other)


def test_an_unknown_kind_of_key_is_not_made() -> None:
    """Settings that name another kind of key are refused by name."""
    with pytest.raises(Misconfigured, match="dsa-1024"):
        keys.generate("dsa-1024")  # type: ignore[arg-type]
