"""A Merkle tree that grows and whose leaves may be replaced, hashed as RFC 9162, section 2.1, says.

Leaves and inner nodes are hashed in domains of their own (``0x00``, ``0x01``), so that neither can be
taken for the other; the left part of a tree of ``n`` leaves has the largest power of two below ``n``.

Pure: nothing here stores or fetches.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import count

EMPTY = sha256(b"").digest()
"""The root of a tree without leaves."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf with this content."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two others."""
    return sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """The tree over a list of leaves. Appending and replacing cost one hash a level."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        # _levels[h][i] covers leaves i·2^h to (i+1)·2^h - 1, and is there once all of them are.
        self._levels: list[list[bytes]] = [[]]

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, data: bytes) -> None:
        """Add a leaf with the content ``data``."""
        digest = leaf_hash(data)
        for height in count():
            if height == len(self._levels):
                self._levels.append([])
            level = self._levels[height]
            level.append(digest)
            if len(level) % 2:
                return
            digest = node_hash(level[-2], level[-1])

    def replace(self, index: int, data: bytes) -> None:
        """Give the leaf ``index``, from 0, the content ``data``."""
        digest = leaf_hash(data)
        for level in self._levels:
            if index >= len(level):
                return
            level[index] = digest
            sibling = index ^ 1
            if sibling >= len(level):
                return
            left, right = (digest, level[sibling]) if index < sibling else (level[sibling], digest)
            digest = node_hash(left, right)
            index //= 2

    def root(self) -> bytes:
        """Return the root over all leaves."""
        root: bytes | None = None
        # The last node of a level with an odd number of them is the top of a complete subtree.
        for level in self._levels:
            if len(level) % 2:
                root = level[-1] if root is None else node_hash(level[-1], root)
        return EMPTY if root is None else root
