"""What a new cluster is made of."""

from __future__ import annotations

import pickle

import pytest

from secrethub.crypto.keyring import unwrap
from secrethub.errors import InvalidRequest
from secrethub.ids import is_uuid
from secrethub.seal.bootstrap import bootstrap
from secrethub.seal.slots import open_slot


def test_the_stored_parts_and_the_shares_give_the_keyring() -> None:
    """From what is stored, three of five shares lead to the root key and the same keyring."""
    made = bootstrap(5, 3, 1_700_000_000)
    assert is_uuid(made.cluster_id)
    root_key = open_slot(made.slot, made.shares[2:])
    assert root_key == made.root_key
    keyring = unwrap(root_key, made.wrapped_keyring, made.cluster_id, made.keyring_revision)
    assert keyring.export() == made.keyring.export()
    assert (made.slot.shares, made.slot.threshold, len(made.shares)) == (5, 3, 5)
    assert made.slot.cluster_id == made.cluster_id
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
