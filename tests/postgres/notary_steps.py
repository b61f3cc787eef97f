"""A cluster with its root key at hand, and its checkpoints. As a program: a notary to kill."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from actors.checkpointing import Checkpointing
from actors.root_key import RootKey
from secrethub.audit.checkpoint import Signed
from secrethub.audit.checkpoint_chain import CheckpointVerifier
from secrethub.audit.verification import LedgerReport, LedgerVerifier
from secrethub.crypto.keyring import Keyring
from secrethub.operations import seal_lifecycle
from secrethub.seal.slots import open_slot
from secrethub.storage.checkpoints import base, checkpoint_pages
from secrethub.storage.database import Database
from secrethub.storage.ledger_read import pruned, row_pages, snapshot
from secrethub.storage.seal_store import ClusterRow, load_cluster


@dataclass(frozen=True)
class Founded:
    """An unsealed cluster."""

    database: Database
    root: RootKey
    keyring: Keyring

    async def row(self) -> ClusterRow:
        """Return the cluster's row."""
        row = await load_cluster(self.database)
        assert row is not None
        return row

    async def begin(self) -> Checkpointing:
        """Begin a new incarnation of the notary."""
        return await Checkpointing.begin(self.database, self.root, await self.row())

    async def verdict(self) -> LedgerReport:
        """Verify the whole ledger with its checkpoints."""
        row = await self.row()
        chain = CheckpointVerifier(row.cluster_id, row.notary_public)
        async with snapshot(self.database) as connection:
            begins = await base(connection)
            if begins is not None:
                chain.begin(begins)
            async for page in checkpoint_pages(connection):
                for signed in page:
                    chain.feed(signed)
            bases = await pruned(connection)
            verifier = LedgerVerifier(self.keyring.derived("audit-sign"), checkpoints=chain, bases=bases)
            async for rows in row_pages(connection):
                verifier.feed_rows(rows)
        return verifier.finish()

    async def checkpoints(self) -> list[Signed]:
        """Return all checkpoints."""
        async with self.database.read() as connection:
            return [signed async for page in checkpoint_pages(connection) for signed in page]


async def found(url: str) -> Founded:
    """Make a cluster at ``url``, unsealed."""
    database = Database(url, size=6)
    made = await seal_lifecycle.initialise(database, 1, 1, datetime.now(UTC))
    root_key = open_slot((await seal_lifecycle.load_slots(database))[0], made.shares)
    epoch = await seal_lifecycle.commit_unsealed(database, root_key, bytes(32))
    keyring = await seal_lifecycle.open_keyring(database, root_key)
    return Founded(database, RootKey(root_key, epoch, 1), keyring)


async def _checkpoint_for_ever(url: str, root_key: bytes) -> None:
    database = Database(url, size=2)
    row = await load_cluster(database)
    assert row is not None
    work = await Checkpointing.begin(database, RootKey(root_key, row.seal_epoch, row.root_version), row)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        await work.step()


if __name__ == "__main__":
    asyncio.run(_checkpoint_for_ever(sys.argv[1], sys.stdin.buffer.read(32)))
