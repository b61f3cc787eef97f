"""The Merkle tree against RFC 9162's own definition."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from secrethub.audit.merkle import EMPTY, MerkleTree, leaf_hash, node_hash


def defined(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word by word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + defined(leaves[:split]) + defined(leaves[split:])).digest()


@given(st.lists(st.binary(max_size=8), max_size=70), st.lists(st.tuples(st.integers(0, 69), st.binary())))
def test_root_is_that_of_the_definition(leaves: list[bytes], changes: list[tuple[int, bytes]]) -> None:
    """After any appends and replacements the root is what the RFC defines over the leaves."""
    tree = MerkleTree()
    for number, leaf in enumerate(leaves):
        tree.append(leaf)
        assert tree.root() == defined(leaves[: number + 1])
    for index, leaf in changes:
        if index < len(leaves):
            leaves[index] = leaf
            tree.replace(index, leaf)
            assert tree.root() == defined(leaves)
    assert len(tree) == len(leaves)
    assert tree.root() == defined(leaves)


def test_empty_tree() -> None:
    """A tree without leaves has the digest of nothing as its root."""
    assert MerkleTree().root() == EMPTY


def test_a_node_is_no_leaf() -> None:
    """Two leaves and one leaf that contains their hashes have different roots."""
    two, one = MerkleTree(), MerkleTree()
    two.append(b"a")
    two.append(b"b")
    one.append(leaf_hash(b"a") + leaf_hash(b"b"))
    assert two.root() == node_hash(leaf_hash(b"a"), leaf_hash(b"b"))
    assert one.root() != two.root()
