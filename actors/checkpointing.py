"""Making checkpoints: one incarnation of the notary at work, wherever it runs.

AuditNotary does it; a key-holder stands in for it (:class:`StandIn`). Whoever takes the next epoch fences
all others: each checkpoint is written on condition of the epoch, in the transaction that looks at the
streams.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.root_key import RootKey
from secrethub.audit.checkpoint import (
    BEFORE_FIRST,
    Checkpoint,
    Signed,
    StreamTree,
    is_signed,
    link,
    sign,
)
from secrethub.audit.checkpoint_base import sign_base
from secrethub.audit.checkpoint_chain import CheckpointVerifier
from secrethub.audit.event import StreamHead, entry_signature
from secrethub.crypto import notary_key
from secrethub.crypto.digests import equal
from secrethub.errors import IntegrityFailure, Stale
from secrethub.seal.timeline import is_begun
from secrethub.storage import checkpoints
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow, next_epoch

PATIENCE = 5.0
"""Seconds that entries wait for the notary before a key-holder stands in."""

_PRUNED = 2_000
"""Checkpoints that go at once."""

_log = logging.getLogger(__name__)


class Checkpointing:
    """The notary's work in one epoch. Given up, and begun again, after any failure.

    It holds the signing key, so it is hidden in ``repr``.
    """

    def __init__(
        self,
        database: Database,
        row: ClusterRow,
        epoch: int,
        *,
        key: Ed25519PrivateKey,
        entry_key: bytes,
        last: Signed | None,
        tree: StreamTree,
    ) -> None:
        self._database = database
        self._cluster = row.cluster_id
        self._timeline = row.timeline
        self._public = row.notary_public
        self._epoch = epoch
        self._key = key
        self._entry_key = entry_key
        self._tree = tree
        self._refused: set[StreamHead] = set()
        self.last = last
        """The newest checkpoint."""

    def __repr__(self) -> str:
        return f"Checkpointing(epoch={self._epoch})"

    @classmethod
    async def begin(cls, database: Database, root: RootKey, row: ClusterRow) -> Checkpointing:
        """Take the next epoch and go on where the newest checkpoint is.

        Args:
            database: the cluster's.
            root: opens the signing key; not kept.
            row: the cluster's row, read just now.

        Raises:
            DecryptionFailed: the signing key does not open, or belongs to another public key.
            IntegrityFailure: the newest checkpoint, or what is kept of it, is not the notary's.
            Unavailable: the database does not answer.
        """
        if not is_begun(root.reveal(), row.cluster_id, row.timeline, row.timeline_mac):
            raise IntegrityFailure("cluster", "timeline", "it was not begun by this cluster")
        key = notary_key.unwrap(root.reveal(), row.wrapped_notary, row.cluster_id, row.notary_public)
        entry_key = _entry_key(root, row)
        epoch = await next_epoch(database, checkpoints.NOTARY)
        async with database.write() as connection:
            # Nobody writes a checkpoint between the two looks.
            await checkpoints.check_epoch(connection, epoch)
            last = await checkpoints.newest(connection)
            tree = await checkpoints.load_tree(connection)
            if last is not None and not is_signed(last, row.notary_public):
                raise IntegrityFailure("audit_checkpoints", _number(last), "the notary did not sign it")
            if last is None and await checkpoints.base(connection) is not None:
                raise IntegrityFailure(
                    "audit_checkpoints", _number(last), "those after the base were removed"
                )
            # Without a checkpoint there is nothing that vouches for what is kept.
            if tree.root() != (StreamTree().root() if last is None else last.checkpoint.root):
                tree = await _replayed(connection, row)
        return cls(database, row, epoch, key=key, entry_key=entry_key, last=last, tree=tree)

    async def step(self) -> Signed | None:
        """Make a checkpoint if any stream went on since the last one.

        Raises:
            Stale: another incarnation took over.
            IntegrityFailure: the newest checkpoint in the database is not the last one made here.
            Unavailable: the database does not answer; whether the checkpoint was made is unknown.
        """
        if await checkpoints.waiting(self._database) is None:
            return None
        async with self._database.write() as connection:
            await checkpoints.check_epoch(connection, self._epoch)
            found = await checkpoints.newest(connection)
            if (None if found is None else link(found)) != (None if self.last is None else link(self.last)):
                raise IntegrityFailure(
                    "audit_checkpoints", _number(found), "it is not the newest that was made"
                )
            moved = await checkpoints.moved_streams(connection)
            heads = tuple(one.head for one in moved if self._sound(one))
            if not heads:
                return None
            at = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            self._tree.move(heads)
            signed = sign(self._key, self._checkpoint(heads, at))
            await checkpoints.put_checkpoint(connection, signed, self._tree)
        self.last = signed
        return signed

    async def prune(self, most: int = _PRUNED) -> int:
        """Let a signed base stand for the oldest checkpoints, where all that they speak of was archived.

        Nothing is signed that was not verified, from the base before on.

        Args:
            most: how many go at once.

        Returns:
            How many went.

        Raises:
            Stale: another incarnation took over.
            IntegrityFailure: one of them is not the notary's.
            Unavailable: the database does not answer; whether they went is unknown.
        """
        async with self._database.write() as connection:
            await checkpoints.check_epoch(connection, self._epoch)
            old = await checkpoints.prunable(connection, most)
            if not old:
                return 0
            verifier = await _verifier(connection, self._cluster, self._public)
            for signed in old:
                verifier.feed(signed)
            last, tree = verifier.last, _sound_tree(verifier)
            assert last is not None
            await checkpoints.put_base(connection, sign_base(self._key, last, tree))
        return len(old)

    def _checkpoint(self, heads: tuple[StreamHead, ...], at: int) -> Checkpoint:
        last = self.last
        return Checkpoint(
            cluster=self._cluster,
            timeline=self._timeline,
            sequence=1 if last is None else last.checkpoint.sequence + 1,
            epoch=self._epoch,
            at=at,
            previous=BEFORE_FIRST if last is None else link(last),
            streams=len(self._tree),
            root=self._tree.root(),
            heads=heads,
        )

    def _sound(self, moved: checkpoints.Moved) -> bool:
        """Tell whether a head may be signed: it goes on, and an entry has it. Others are left as they are."""
        head = moved.head
        if _goes_on(moved, self._tree, self._entry_key):
            return True
        if head not in self._refused:
            self._refused.add(head)
            _log.error("%r: stream %s does not go on as it should and is not signed", self, head.stream)
        return False


class StandIn:
    """Makes checkpoints where the root key is, while the notary is gone."""

    def __init__(self, database: Database, *, patience: float = PATIENCE) -> None:
        """Prepare.

        Args:
            database: the cluster's.
            patience: seconds that entries wait for the notary.
        """
        self._database = database
        self._patience = patience
        self._work: Checkpointing | None = None
        self._seen: tuple[int, float] | None = None

    @property
    def active(self) -> bool:
        """Whether this one is the notary now."""
        return self._work is not None

    async def step(self, root: RootKey, row: ClusterRow) -> None:
        """Look whether the notary does its work, and do it if not.

        Raises:
            Unavailable: the database does not answer.
            IntegrityFailure, DecryptionFailed: as :meth:`Checkpointing.begin`.
        """
        try:
            if self._work is None:
                if not await self._late() or not await self._signable(root, row):
                    return
                self._work = await Checkpointing.begin(self._database, root, row)
                _log.warning("%r: the notary is gone; this key-holder stands in", self._work)
            await self._work.step()
        except Stale:
            self.drop()
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Let go of the signing key."""
        self._work = self._seen = None

    async def _late(self) -> bool:
        sequence = await checkpoints.waiting(self._database)
        now = time.monotonic()
        if sequence is None:
            self._seen = None
        elif self._seen is None or self._seen[0] != sequence:
            self._seen = (sequence, now)
        return self._seen is not None and now - self._seen[1] >= self._patience

    async def _signable(self, root: RootKey, row: ClusterRow) -> bool:
        """Tell whether anything that waits may be signed: what may not waits for ever, for any notary."""
        async with self._database.read() as connection:
            moved = await checkpoints.moved_streams(connection)
            tree = await checkpoints.load_tree(connection)
        key = _entry_key(root, row)
        return any(_goes_on(one, tree, key) for one in moved)


def _entry_key(root: RootKey, row: ClusterRow) -> bytes:
    keyring = root.keyring(row)
    try:
        return keyring.derived("audit-sign")
    finally:
        keyring.wipe()


def _goes_on(moved: checkpoints.Moved, tree: StreamTree, entry_key: bytes) -> bool:
    """Tell whether a head is beyond what the tree has of its stream, and that of an entry."""
    head, known = moved.head, tree.get(moved.head.stream)
    return (known is None or head.number > known.number) and (
        moved.signature == b"" or equal(entry_signature(entry_key, head.head), moved.signature)
    )


async def _replayed(connection: asyncpg.Connection[Any], row: ClusterRow) -> StreamTree:
    """Return the newest checkpoint's tree from all checkpoints, and keep it: what was kept is another one."""
    _log.error("the streams kept beside the newest checkpoint are not its own; all checkpoints are read")
    verifier = await _verifier(connection, row.cluster_id, row.notary_public)
    async for page in checkpoints.checkpoint_pages(connection):
        for signed in page:
            verifier.feed(signed)
    tree = _sound_tree(verifier)
    await checkpoints.keep_tree(connection, tree)
    return tree


async def _verifier(connection: asyncpg.Connection[Any], cluster: str, public: bytes) -> CheckpointVerifier:
    """Return what verifies the checkpoints that there are from their base on."""
    verifier = CheckpointVerifier(cluster, public)
    begins = await checkpoints.base(connection)
    if begins is not None:
        verifier.begin(begins)
    return verifier


def _sound_tree(verifier: CheckpointVerifier) -> StreamTree:
    """Return the tree of the newest checkpoint that was fed.

    Raises:
        IntegrityFailure: one is not in order.
    """
    bad = verifier.finish()
    if bad is not None:
        raise IntegrityFailure("audit_checkpoints", str(bad.number), bad.reason)
    return verifier.tree


def _number(signed: Signed | None) -> str:
    return "none" if signed is None else str(signed.checkpoint.sequence)
