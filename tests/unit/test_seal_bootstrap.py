"""What a new cluster is made of."""

from __future__ import annotations

import pickle

import pytest

from secrethub.crypto.hybrid import HybridKey
from secrethub.crypto.keyring import unwrap
from secrethub.errors import InvalidRequest
from secrethub.ids import is_uuid
from secrethub.seal.bootstrap import bootstrap
from secrethub.seal.slots import KmsSlot, ShamirSlot, open_slot, open_with, slot_secret


def test_the_stored_parts_and_the_shares_give_the_keyring() -> None:
    """From what is stored, three of five shares lead to the root key and the same keyring."""
    made = bootstrap(5, 3, 1_700_000_000)
    assert is_uuid(made.cluster_id)
    (slot,) = made.slots
    assert isinstance(slot, ShamirSlot)
    root_key = open_slot(slot, made.shares[2:])
    assert root_key == made.root_key
    keyring = unwrap(root_key, made.wrapped_keyring, made.cluster_id, made.keyring_revision)
    assert keyring.export() == made.keyring.export()
    assert (slot.shares, slot.threshold, len(made.shares)) == (5, 3, 5)
    assert slot.cluster_id == made.cluster_id
    assert made.keyring_revision == 1


def test_every_cluster_is_its_own() -> None:
    """Two bootstraps share neither id, keys nor shares."""
    one, other = bootstrap(3, 2, 1_700_000_000), bootstrap(3, 2, 1_700_000_000)
    assert one.cluster_id != other.cluster_id
    assert one.root_key != other.root_key
    assert one.keyring.export() != other.keyring.export()
    assert not set(one.shares) & set(other.shares)


def test_impossible_numbers_are_refused() -> None:
    """A cluster that could not be opened, or by anyone, is not made."""
    for shares, threshold in [(0, 0), (3, 1), (3, 4), (256, 2)]:
        with pytest.raises(InvalidRequest):
            bootstrap(shares, threshold, 1_700_000_000)


def test_a_bootstrap_neither_shows_nor_travels() -> None:
    """Root key and shares are hidden in text, and pickling is refused."""
    made = bootstrap(3, 2, 1_700_000_000)
    for secret in (made.root_key, *made.shares):
        assert repr(secret)[2:-1] not in repr(made)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(made)


def test_a_key_service_opens_and_the_shares_decide() -> None:
    """With a key service its slot opens the root key, and the shares belong to a set that does not."""
    secret, cluster = bytes(range(32)), "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10"
    opener = KmsSlot(
        slot_id="7d2f3a1c-9e10-4f0e-9b7e-5f0c71278a6e",
        cluster_id=cluster,
        kind="awskms",
        service="main",
        wrapped_secret=b"wrapped",
        public=HybridKey(secret).public,
        wrapped_root=b"",
    )
    made = bootstrap(3, 2, 1_700_000_000, opener)
    assert made.cluster_id == cluster
    decides, opens = made.slots
    assert isinstance(decides, ShamirSlot)
    assert (decides.opens, decides.wrapped_root, decides.shares) == (False, b"", 3)
    assert open_with(opens, secret) == made.root_key
    slot_secret(decides, made.shares[:2])
