"""The keyring: rotation, export, wrapping, wiping."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from secrethub.crypto import aead
from secrethub.crypto.aead import Place
from secrethub.crypto.keyring import Keyring, unwrap, wrap
from secrethub.errors import DecryptionFailed, Sealed, Unavailable, UnknownKey

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "formats.json").read_text("utf-8"))["keyring"]
PLACE = Place(table="kv_versions", column="data", row="secret/a", version=1)
ROOT = bytes(range(32))
SEALED = Keyring.generate().seal(b"x", PLACE)


def test_stored_formats_match_the_vectors() -> None:
    """Export, wrapping, sealed values and derived keys are those written down for older clusters."""
    root, exported = bytes.fromhex(VECTOR["root_key"]), bytes.fromhex(VECTOR["exported"])
    keyring = unwrap(root, bytes.fromhex(VECTOR["wrapped"]), VECTOR["cluster_id"], VECTOR["revision"])
    assert keyring.export() == exported
    assert keyring.newest == 2
    table, column, row, version = VECTOR["place"]
    place = Place(table=table, column=column, row=row, version=version)
    for sealed in VECTOR["sealed"]:
        assert keyring.open(bytes.fromhex(sealed), place).hex() == VECTOR["plaintext"]
    for purpose, derived in VECTOR["derived"].items():
        assert keyring.derived(purpose).hex() == derived


def test_rotation_seals_with_the_new_key_and_opens_with_all() -> None:
    """After a rotation old values open, new ones carry the new number, the old keyring cannot open them."""
    old = Keyring.generate()
    before = old.seal(b"before", PLACE)
    new = old.rotated()
    after = new.seal(b"after", PLACE)
    assert (old.newest, new.newest) == (1, 2)
    assert aead.key_number(after) == 2
    assert new.open(before, PLACE) == b"before"
    assert new.open(after, PLACE) == b"after"
    with pytest.raises(UnknownKey, match="key 2") as unknown:
        old.open(after, PLACE)
    assert unknown.value.number == 2


def test_a_keyring_learns_of_younger_keys_and_seals_as_before() -> None:
    """What others seal with a younger key opens, while one's own values are sealed as before until told."""
    ours = Keyring.generate()
    theirs = ours.rotated(1000)
    sealed = theirs.seal(b"x", PLACE)
    ours.learn(theirs)
    theirs.wipe()
    assert ours.open(sealed, PLACE) == b"x"
    assert (ours.newest, ours.sealing, ours.made_at(2)) == (2, 1, 1000)
    assert aead.key_number(ours.seal(b"y", PLACE)) == 1
    ours.seal_with(2, 5)
    assert aead.key_number(ours.seal(b"z", PLACE)) == 2


@pytest.mark.parametrize("other", [Keyring.generate(), Keyring(bytes(32), {1: bytes(32), 2: bytes(32)})])
def test_nothing_is_learned_from_another_keyring(other: Keyring) -> None:
    """A keyring of another cluster, or one in which a known key differs, is refused and changes nothing."""
    ours = Keyring(bytes(32), {1: b"\x01" * 32})
    before = ours.export()
    with pytest.raises(DecryptionFailed, match="later state"):
        ours.learn(other)
    assert ours.export() == before


def test_a_key_that_the_cluster_does_not_have_is_damage() -> None:
    """A value that names a key which was asked for in vain is damaged, until such a key is learned of."""
    ours = Keyring.generate()
    theirs = ours.rotated()
    sealed = theirs.seal(b"x", PLACE)
    ours.rule_out(2)
    with pytest.raises(DecryptionFailed, match="key 2"):
        ours.open(sealed, PLACE)
    ours.learn(theirs)
    assert ours.open(sealed, PLACE) == b"x"


def test_a_younger_key_seals_once_it_had_time_to_spread() -> None:
    """Who asks which key should seal is told of the newest that is old enough, or of the first one."""
    keyring = Keyring.generate(100).rotated(200)
    assert [keyring.due(now) for now in (0, 100, 200, 202.9, 203, 1e10)] == [1, 1, 1, 1, 2, 2]
    assert [keyring.due(now, 0) for now in (0, 199.9, 200)] == [1, 1, 2]


def test_a_counted_key_seals_no_more_than_was_reserved() -> None:
    """Sealing ends with what was reserved and goes on with more; another key has a count of its own."""
    keyring = Keyring.generate().rotated()
    assert keyring.left is None
    keyring.seal_with(2, 2)
    keyring.seal(b"a", PLACE)
    assert keyring.left == 1
    keyring.seal_with(2, 1)
    assert keyring.left == 2
    for _ in range(2):
        keyring.seal(b"b", PLACE)
    with pytest.raises(Unavailable):
        keyring.seal(b"c", PLACE)
    keyring.seal_with(1, 1)
    assert aead.key_number(keyring.seal(b"d", PLACE)) == 1
    with pytest.raises(Unavailable):
        keyring.seal(b"e", PLACE)
    with pytest.raises(KeyError):
        keyring.seal_with(3, 1)


def test_rotation_keeps_derived_keys() -> None:
    """Derived keys survive rotation, differ by purpose, and differ between keyrings."""
    keyring = Keyring.generate()
    assert keyring.rotated().derived("token") == keyring.derived("token")
    assert keyring.derived("token") != keyring.derived("accessor")
    assert keyring.derived("token") != Keyring.generate().derived("token")


def test_export_and_load_are_inverse() -> None:
    """A loaded keyring is the exported one, in every key."""
    keyring = Keyring.generate(7).rotated(8).rotated(9)
    loaded = Keyring.load(keyring.export())
    assert loaded.export() == keyring.export()
    assert [loaded.made_at(number) for number in (1, 2, 3)] == [7, 8, 9]
    assert loaded.newest == loaded.sealing == 3
    assert loaded.open(keyring.seal(b"x", PLACE), PLACE) == b"x"


@pytest.mark.parametrize(
    "exported",
    [
        b"",
        b"\x01",
        b"\x01" + bytes(32),
        b"\x02",
        b"\x02" + bytes(32),
        b"\x01" + bytes(32) + b"\x00\x00\x00\x01" + bytes(40),
        b"\x03" + bytes(32) + b"\x00\x00\x00\x01" + bytes(40),
        b"\x02" + bytes(32) + b"\x00\x00\x00\x00" + bytes(40),
        b"\x02" + bytes(32) + b"\x00\x00\x00\x01" + bytes(39),
        b"\x02" + bytes(32) + (b"\x00\x00\x00\x01" + bytes(40)) * 2,
    ],
)
def test_what_is_no_export_is_refused(exported: bytes) -> None:
    """A wrong version, length or key number is refused."""
    with pytest.raises(DecryptionFailed):
        Keyring.load(exported)


@pytest.mark.parametrize(
    ("root", "cluster", "revision"),
    [(bytes(32), "cluster", 1), (ROOT, "other", 1), (ROOT, "cluster", 2)],
)
def test_a_wrapped_keyring_is_bound(root: bytes, cluster: str, revision: int) -> None:
    """A wrapped keyring opens only with its root key, in its cluster, at its revision."""
    wrapped = wrap(ROOT, Keyring.generate(), "cluster", 1)
    assert unwrap(ROOT, wrapped, "cluster", 1).newest == 1
    with pytest.raises(DecryptionFailed):
        unwrap(root, wrapped, cluster, revision)


@pytest.mark.parametrize(
    "use",
    [
        lambda keyring: keyring.newest,
        lambda keyring: keyring.seal(b"", PLACE),
        lambda keyring: keyring.open(b"", PLACE),
        lambda keyring: keyring.open(SEALED, PLACE),
        lambda keyring: keyring.derived("token"),
        lambda keyring: keyring.derived("never asked before"),
        lambda keyring: keyring.export(),
        lambda keyring: keyring.rotated(),
        lambda keyring: keyring.learn(Keyring.generate()),
        lambda keyring: keyring.seal_with(1, 1),
        lambda keyring: Keyring.generate().learn(keyring),
        lambda keyring: wrap(ROOT, keyring, "cluster", 1),
    ],
)
def test_a_wiped_keyring_is_sealed(use: Callable[[Keyring], object]) -> None:
    """After a wipe every use raises Sealed, also what was cached before, and wiping again is fine."""
    keyring = Keyring.generate()
    keyring.derived("token")
    keyring.wipe()
    keyring.wipe()
    with pytest.raises(Sealed):
        use(keyring)


def test_a_wipe_zeroes_the_buffers() -> None:
    """The key buffers that the keyring owns hold zeros after the wipe."""
    keyring = Keyring.generate().rotated()
    buffers = [keyring._base, *keyring._keys.values()]
    keyring.wipe()
    assert [bytes(buffer) for buffer in buffers] == [bytes(32)] * 3


def test_a_wipe_reaches_no_other_keyring() -> None:
    """A rotated or loaded keyring has its own buffers and outlives the wipe of the first."""
    keyring = Keyring.generate()
    rotated, loaded = keyring.rotated(), Keyring.load(keyring.export())
    sealed = keyring.seal(b"x", PLACE)
    keyring.wipe()
    assert rotated.open(sealed, PLACE) == b"x"
    assert loaded.open(sealed, PLACE) == b"x"


def test_a_keyring_neither_shows_nor_travels() -> None:
    """A keyring hides its keys in text and refuses pickling and copying."""
    keyring = Keyring.generate()
    assert repr(keyring) == str(keyring) == f"{keyring}" == "Keyring(…)"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(keyring, protocol)
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(keyring)


def test_impossible_keyrings_cannot_be_made() -> None:
    """A keyring without keys, with short keys or with number 0 is refused."""
    for base, keys in [
        (bytes(32), {}),
        (bytes(31), {1: bytes(32)}),
        (bytes(32), {1: bytes(16)}),
        (bytes(32), {0: bytes(32)}),
        (bytes(32), {2**32: bytes(32)}),
    ]:
        with pytest.raises(ValueError, match="key"):
            Keyring(base, keys)


def test_the_root_key_has_32_bytes() -> None:
    """A short root key wraps nothing."""
    with pytest.raises(ValueError, match="root key"):
        wrap(b"short", Keyring.generate(), "cluster", 1)
