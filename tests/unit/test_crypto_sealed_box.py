"""Sealed boxes and the HPKE below them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from secrethub.crypto import hpke
from secrethub.crypto.sealed_box import Recipient, check_proof, info, proof, seal_to
from secrethub.errors import DecryptionFailed, InvalidRequest, Misconfigured, PermissionDenied

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "hpke_psk.json").read_text("utf-8"))
PSK = bytes(range(32))
INFO = info("cluster", "node-a", "keyring", 7)
# Points of small order, for which the shared secret would be zero (RFC 7748, section 6.1).
SMALL_ORDER = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)


def vector(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def test_the_official_vector_opens() -> None:
    """The official vector of this suite in mode_psk opens to its plaintext."""
    private = X25519PrivateKey.from_private_bytes(vector("skRm"))
    assert private.public_key().public_bytes_raw() == vector("pkRm")
    opened = hpke.open_psk(
        private,
        vector("enc"),
        vector("ct"),
        info=vector("info"),
        aad=vector("aad"),
        psk=vector("psk"),
        psk_id=vector("psk_id"),
    )
    assert opened == vector("pt")


@pytest.mark.parametrize("changed", ["enc", "ct", "info", "aad", "psk", "psk_id"])
def test_a_changed_vector_does_not_open(changed: str) -> None:
    """Every input counts: one other bit and the official vector no longer opens."""
    inputs = {name: vector(name) for name in ("enc", "ct", "info", "aad", "psk", "psk_id")}
    inputs[changed] = bytes([inputs[changed][0] ^ 1]) + inputs[changed][1:]
    private = X25519PrivateKey.from_private_bytes(vector("skRm"))
    with pytest.raises(DecryptionFailed):
        hpke.open_psk(private, inputs.pop("enc"), inputs.pop("ct"), **inputs)


def test_a_given_ephemeral_key_makes_the_message_reproducible() -> None:
    """With the same ephemeral key both sides of HPKE are a function of their inputs."""
    private, ephemeral = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    sealed = [
        hpke.seal_psk(
            private.public_key().public_bytes_raw(),
            b"canary",
            info=b"i",
            aad=b"a",
            psk=PSK,
            psk_id=b"id",
            ephemeral=ephemeral,
        )
        for _ in range(2)
    ]
    assert sealed[0] == sealed[1]
    enc, ciphertext = sealed[0]
    assert hpke.open_psk(private, enc, ciphertext, info=b"i", aad=b"a", psk=PSK, psk_id=b"id") == b"canary"


@pytest.mark.parametrize(("psk", "psk_id"), [(b"", b""), (bytes(31), b"id"), (PSK, b"")])
def test_hpke_demands_a_whole_named_pre_shared_key(psk: bytes, psk_id: bytes) -> None:
    """A short or nameless pre-shared key is refused (RFC 9180, sections 5.1 and 9.5)."""
    with pytest.raises(ValueError, match="pre-shared"):
        hpke.key_schedule(bytes(32), info=b"", psk=psk, psk_id=psk_id)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_a_box_opens_for_its_recipient(plaintext: bytes) -> None:
    """What is sealed to a recipient opens there, and is 48 bytes longer."""
    recipient = Recipient()
    box = seal_to(recipient.public, plaintext, PSK, INFO)
    assert recipient.open(box, PSK, INFO) == plaintext
    assert len(box) == 32 + len(plaintext) + 16


def test_only_the_recipient_opens() -> None:
    """Another key pair of the same cluster does not open the box."""
    box = seal_to(Recipient().public, b"canary", PSK, INFO)
    with pytest.raises(DecryptionFailed):
        Recipient().open(box, PSK, INFO)


def test_without_the_cluster_key_no_box_is_made_or_opened() -> None:
    """A box made under another pre-shared key does not open, so nobody outside can forge one."""
    recipient = Recipient()
    with pytest.raises(DecryptionFailed):
        recipient.open(seal_to(recipient.public, b"canary", bytes(32), INFO), PSK, INFO)
    with pytest.raises(DecryptionFailed):
        recipient.open(seal_to(recipient.public, b"canary", PSK, INFO), bytes(32), INFO)


@pytest.mark.parametrize(
    "other",
    [
        info("other", "node-a", "keyring", 7),
        info("cluster", "node-b", "keyring", 7),
        info("cluster", "node-a", "root", 7),
        info("cluster", "node-a", "keyring", 8),
    ],
)
def test_a_box_is_for_one_purpose(other: bytes) -> None:
    """A box for another cluster, node, purpose or epoch does not open, nor is its proof accepted."""
    recipient = Recipient()
    with pytest.raises(DecryptionFailed):
        recipient.open(seal_to(recipient.public, b"canary", PSK, INFO), PSK, other)
    with pytest.raises(PermissionDenied):
        check_proof(PSK, recipient.public, other, proof(PSK, recipient.public, INFO))


def test_info_keeps_its_fields_apart() -> None:
    """Characters moved from one field to the next name another hand-over."""
    names = [
        info("a", "ab", "b", 1),
        info("aa", "b", "b", 1),
        info("", "aab", "b", 1),
        info("aabb", "", "", 1),
    ]
    assert len(set(names)) == len(names)


@settings(deadline=None)
@given(st.data())
def test_any_changed_bit_of_a_box_is_noticed(data: st.DataObject) -> None:
    """Every bit of the encapsulated key and of the ciphertext counts.

    The one exception is X25519's own: the top bit of a public key is ignored when it is read, but
    the key schedule covers the bytes as sent, so that change is noticed too.
    """
    recipient = Recipient()
    box = bytearray(seal_to(recipient.public, b"canary", PSK, INFO))
    position = data.draw(st.integers(0, len(box) * 8 - 1))
    box[position // 8] ^= 1 << position % 8
    with pytest.raises(DecryptionFailed):
        recipient.open(bytes(box), PSK, INFO)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_garbage_is_no_box(garbage: bytes) -> None:
    """Bytes that were never sealed raise the one error."""
    with pytest.raises(DecryptionFailed):
        Recipient().open(garbage, PSK, INFO)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), *SMALL_ORDER])
def test_unusable_public_keys_are_refused(public: bytes) -> None:
    """Nothing is sealed to a key of the wrong length or of small order, and no such box opens."""
    with pytest.raises(InvalidRequest):
        seal_to(public, b"canary", PSK, INFO)
    with pytest.raises(DecryptionFailed):
        Recipient().open(public + bytes(48), PSK, INFO)


def test_a_proof_shows_the_cluster_key() -> None:
    """A proof holds for its key, public key and purpose, and for nothing else."""
    public = Recipient().public
    given_proof = proof(PSK, public, INFO)
    check_proof(PSK, public, INFO, given_proof)
    for psk, key, wrong in [
        (bytes(32), public, given_proof),
        (PSK, Recipient().public, given_proof),
        (PSK, public, given_proof[:-1]),
        (PSK, public, b""),
        (PSK, public, bytes(32)),
    ]:
        with pytest.raises(PermissionDenied):
            check_proof(psk, key, INFO, wrong)


def test_a_short_cluster_key_is_refused() -> None:
    """A pre-shared key below 32 bytes neither seals, opens nor proves."""
    recipient = Recipient()
    with pytest.raises(Misconfigured):
        seal_to(recipient.public, b"", b"short", INFO)
    with pytest.raises(Misconfigured):
        recipient.open(bytes(48), b"short", INFO)
    with pytest.raises(Misconfigured):
        proof(b"short", recipient.public, INFO)


def test_a_recipient_neither_shows_nor_travels() -> None:
    """A recipient shows its public key alone, refuses pickling, and is new every time."""
    recipient = Recipient()
    assert repr(recipient) == f"Recipient(public={recipient.public.hex()})"
    assert recipient._private.private_bytes_raw().hex() not in repr(recipient)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(recipient)
    assert Recipient().public != recipient.public
