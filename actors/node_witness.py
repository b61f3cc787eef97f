"""The node's witness: newest checkpoint and seal epoch it was shown, in a file outside the database.

One file a cluster, private and replaced whole. It is written where the root key is, which proves the
notary's public key; it is compared whenever there is a database, also while sealed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from actors.root_key import RootKey
from secrethub.audit.checkpoint import Signed, is_signed
from secrethub.audit.witness import RolledBack, contradiction
from secrethub.crypto import notary_key
from secrethub.errors import Misconfigured
from secrethub.seal.timeline import is_begun
from secrethub.storage import checkpoints
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow


class Witness(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds: nothing of it is secret, but nobody else may change it.

    Attributes:
        public: the notary's public key.
        signed: the newest checkpoint.
        seal_epoch: the newest one that the database was in.
    """

    public: bytes
    signed: Signed
    seal_epoch: int = 0


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

    def path(self, cluster_id: str) -> Path:
        """Return where the witness of a cluster is."""
        return self._folder / f"witness-{cluster_id}.json"

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
            return await self._compare(database, row, root)

    async def _compare(self, database: Database, row: ClusterRow, root: RootKey | None) -> RolledBack | None:
        kept = self._kept or self._load(row.cluster_id)
        async with database.read() as connection:
            epoch = int(await connection.fetchval("SELECT max(seal_epoch) FROM cluster") or 0)
            newest = await checkpoints.newest(connection)
            same = None
            if kept is not None:
                same = await checkpoints.at_sequence(connection, kept.signed.checkpoint.sequence)
        if kept is not None:
            found = contradiction(kept.signed, kept.public, newest, same)
            if found is not None and row.timeline > kept.signed.checkpoint.timeline:
                # A restore that was accepted, perhaps, and has no checkpoint yet: the root key tells.
                if root is None or not root.fits(row):
                    self.looked = False
                    return None
                if is_begun(root.reveal(), row.cluster_id, row.timeline, row.timeline_mac):
                    self.looked = True
                    return None
            if found is None and epoch < kept.seal_epoch:
                found = "older"
            if found is not None:
                return found
        self.looked = True
        self._remember(row, root, newest, epoch)
        return None

    def _remember(self, row: ClusterRow, root: RootKey | None, newest: Signed | None, epoch: int) -> None:
        """Keep the newest checkpoint, and the seal epoch."""
        kept = self._kept
        if newest is None or (kept is not None and (newest, epoch) == (kept.signed, kept.seal_epoch)):
            return
        public = kept.public if kept is not None else _public(root, row)
        if public is not None and is_signed(newest, public):
            self._keep(row.cluster_id, Witness(public, newest, epoch))

    def _load(self, cluster_id: str) -> Witness | None:
        path = self.path(cluster_id)
        try:
            self._kept = msgspec.json.decode(path.read_bytes(), type=Witness)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as exc:
            raise Misconfigured(
                f"{path} cannot be read, so a restored database would not be noticed"
            ) from exc
        return self._kept

    def _keep(self, cluster_id: str, witness: Witness) -> None:
        path = self.path(cluster_id)
        draft = path.with_suffix(".new")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(witness))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise Misconfigured(f"{path} cannot be written: {exc.strerror}") from exc
        self._kept = witness


def _public(root: RootKey | None, row: ClusterRow) -> bytes | None:
    """Return the public key of the notary, proven by the root key."""
    if root is None or not root.fits(row):
        return None
    key = notary_key.unwrap(root.reveal(), row.wrapped_notary, row.cluster_id, row.notary_public)
    return notary_key.public_of(key)
