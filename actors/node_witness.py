"""The node's witness: newest checkpoint and seal epoch it was shown, in a file outside the database.

It is written by the key-holder, where the root key proves the notary's public key, and compared whenever
there is a database, also while sealed; and by SealState before it unseals anything. What an agent has seen
counts as if the node had seen it, once the database contradicts it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from actors.root_key import RootKey
from secrethub.audit.checkpoint import Signed, is_signed
from secrethub.audit.witness import RolledBack, Witness, contradiction
from secrethub.crypto import notary_key
from secrethub.errors import PermissionDenied
from secrethub.seal.timeline import is_begun
from secrethub.storage import checkpoints, witness_file
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow


class NodeWitness:
    """The file and the look at the database.

    Attributes:
        looked: whether the database was compared, and nothing is open.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare.

        Args:
            folder: private directory of the node that outlives restarts.
        """
        self._folder = folder
        self._kept: Witness | None = None
        self._looking = asyncio.Lock()
        self.looked = False

    def __repr__(self) -> str:
        kept = None if self._kept is None else self._kept.signed.checkpoint.sequence
        return f"NodeWitness(sequence={kept})"

    @property
    def timeline(self) -> int:
        """The timeline of what is kept, 0 before anything is."""
        return 0 if self._kept is None else self._kept.signed.checkpoint.timeline

    async def look(self, database: Database, row: ClusterRow, root: RootKey | None) -> RolledBack | None:
        """Compare the database with the witness and, if it goes on from there, keep its newest checkpoint.

        Args:
            database: the cluster's.
            row: the cluster's row.
            root: the root key, where it is.

        Returns:
            What is wrong with the database, or None.

        Raises:
            Misconfigured: the file cannot be read or written.
            Unavailable: the database does not answer.
            IntegrityFailure: a checkpoint cannot be read.
        """
        # One look at a time: what is kept is never newer than what is read afterwards.
        async with self._looking:
            kept = self._kept or witness_file.load(self._folder, row.cluster_id)
            self._kept = kept
            found = await _compared(kept, database, row, root)
            if isinstance(found, _Open):
                self.looked = False
                return None
            if isinstance(found, str):
                return found
            self.looked = True
            self._remember(row, root, found)
            return None

    def _remember(self, row: ClusterRow, root: RootKey | None, found: _Fine) -> None:
        """Keep the newest checkpoint, and the seal epoch."""
        kept, newest = self._kept, found.newest
        if newest is None or (kept is not None and (newest, found.epoch) == (kept.signed, kept.seal_epoch)):
            return
        public = kept.public if kept is not None else _public(root, row)
        if public is not None and is_signed(newest, public):
            witness = Witness(public, newest, found.epoch)
            witness_file.keep(self._folder, row.cluster_id, witness)
            self._kept = witness

    async def hear(self, database: Database, row: ClusterRow, root: RootKey, signed: Signed) -> None:
        """Take over a checkpoint that somebody else has kept, if the database contradicts it.

        From then on it is this node's own: the next look says so, and any look after that, whatever is
        written into the database meanwhile.

        Args:
            database: the cluster's.
            row: the cluster's row.
            root: the root key, which proves the notary's public key.
            signed: what was kept.

        Raises:
            PermissionDenied: this cluster's notary has not signed it; or that cannot be told.
            Misconfigured: the file cannot be read or written.
            Unavailable: the database does not answer.
            IntegrityFailure: a checkpoint cannot be read.
        """
        public = _public(root, row)
        if public is None or signed.checkpoint.cluster != row.cluster_id or not is_signed(signed, public):
            raise PermissionDenied("the notary has not signed this checkpoint")
        async with self._looking:
            kept = self._kept or witness_file.load(self._folder, row.cluster_id)
            witness = Witness(public, signed, 0 if kept is None else kept.seal_epoch)
            if isinstance(await _compared(witness, database, row, root), str):
                witness_file.keep(self._folder, row.cluster_id, witness)
                self._kept = witness

    async def against(self, database: Database, row: ClusterRow, root: RootKey) -> RolledBack | None:
        """Compare the database with what the file has now; nothing is kept.

        Args:
            database: the cluster's.
            row: the cluster's row.
            root: the root key, proven.

        Returns:
            What is wrong with the database, or None.

        Raises:
            Misconfigured: the file cannot be read.
            Unavailable: the database does not answer.
            IntegrityFailure: a checkpoint cannot be read.
        """
        # Read before the database is: whoever keeps it goes on meanwhile.
        self._kept = witness_file.load(self._folder, row.cluster_id)
        found = await _compared(self._kept, database, row, root)
        return found if isinstance(found, str) else None


class _Open:
    """Nothing can be said without the root key."""


class _Fine(NamedTuple):
    """The database goes on from what was seen. ``newest`` is None where a restore was accepted."""

    newest: Signed | None
    epoch: int


async def _compared(
    kept: Witness | None, database: Database, row: ClusterRow, root: RootKey | None
) -> RolledBack | _Open | _Fine:
    async with database.read() as connection:
        epoch = int(await connection.fetchval("SELECT max(seal_epoch) FROM cluster") or 0)
        if kept is None:
            return _Fine(await checkpoints.newest(connection), epoch)
        newest, same, base = await checkpoints.beside(connection, kept.signed.checkpoint.sequence)
    found = contradiction(kept.signed, kept.public, newest, same, base)
    if found is not None and row.timeline > kept.signed.checkpoint.timeline:
        # A restore that was accepted, perhaps, and has no checkpoint yet: the root key tells.
        if root is None or not root.fits(row):
            return _Open()
        if is_begun(root.reveal(), row.cluster_id, row.timeline, row.timeline_mac):
            return _Fine(None, epoch)
    if found is None and epoch < kept.seal_epoch:
        found = "older"
    return _Fine(newest, epoch) if found is None else found


def _public(root: RootKey | None, row: ClusterRow) -> bytes | None:
    """Return the public key of the notary, proven by the root key."""
    if root is None or not root.fits(row):
        return None
    key = notary_key.unwrap(root.reveal(), row.wrapped_notary, row.cluster_id, row.notary_public)
    return notary_key.public_of(key)
