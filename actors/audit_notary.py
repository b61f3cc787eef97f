"""AuditNotary: signs what the ledger's streams have come to, so that nobody can rewrite them later.

It holds the one key that signs checkpoints and, beside the key-holders that stand in for it, nobody else
opens it. It parses no network input, and nobody calls it but to have the key dropped; what it makes is in the
database.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from actors.checkpointing import Checkpointing
from actors.handles.protocol import Handles
from actors.pulse import pulse
from actors.root_key import recover
from actors.tree import AUDIT_NOTARY
from secrethub.errors import DecryptionFailed, IntegrityFailure, Stale
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow, load_cluster

_log = logging.getLogger(__name__)


class AuditNotary:
    """One per cluster.

    Promise: while entries are written, checkpoints are at most a second apart, each over all streams. Of
    several incarnations only the newest can make one. A restart goes on where the newest checkpoint is; a
    database whose newest checkpoint is not the notary's gets none. When the cluster is sealed the key
    goes, and the process with it.
    """

    def __init__(
        self,
        *,
        node: str,
        database: Database,
        handles: Handles,
        psk: bytes,
        pulse: float = 0.8,
        prune: float = 600.0,
    ) -> None:
        """Begin without keys.

        Args:
            node: this node's name.
            database: the cluster's.
            handles: where SealState and the key-holders are found.
            psk: the cluster's pre-shared key.
            pulse: seconds between two looks at the streams.
            prune: seconds between two looks for checkpoints of what was archived.
        """
        self._node = node
        self._database = database
        self._handles = handles
        self._psk = psk
        self._pulse = pulse
        self._work: Checkpointing | None = None
        self._seal_epoch = 0
        self._prune_every = prune
        self._prune_at = time.monotonic() + prune
        self._said = ""
        self._done = asyncio.Event()
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"AuditNotary(node={self._node})"

    async def health(self) -> dict[str, object]:
        """Tell what the newest checkpoint is."""
        last = None if self._work is None or self._work.last is None else self._work.last.checkpoint
        return {
            "name": AUDIT_NOTARY,
            "node": self._node,
            "pid": os.getpid(),
            "holds": self._work is not None,
            "sequence": last.sequence if last is not None else None,
            "trouble": self._said,
        }

    async def drop(self, epoch: int) -> None:
        """Let go of the key because of the seal that began ``epoch``, and ask to be replaced.

        It returns when whatever was under way with the key has ended.
        """
        async with self._turn:
            if self._work is not None and self._seal_epoch < epoch:
                self._let_go()

    async def hold(self) -> None:
        """Make checkpoints until closed, replaced, or after a seal."""
        await pulse(self._step, self._done, self._pulse)

    async def close(self) -> None:
        """Let go of the key and of the database."""
        self._work = None
        self._done.set()
        await self._database.close()

    def _let_go(self) -> None:
        # Python may keep copies of the key, so a fresh process goes on.
        self._work = None
        self._done.set()

    async def _step(self) -> None:
        async with self._turn:
            await self._in_turn()

    async def _in_turn(self) -> None:
        row = await load_cluster(self._database)
        if row is None:
            return
        if self._work is not None and (row.sealed or row.seal_epoch != self._seal_epoch):
            self._let_go()
        elif not row.sealed:
            await self._checkpoint(row)

    async def _checkpoint(self, row: ClusterRow) -> None:
        try:
            if self._work is None:
                self._work = await self._begun(row)
            await self._work.step()
            await self._prune(self._work)
        except Stale:
            self._work = None
            self._done.set()
        except (IntegrityFailure, DecryptionFailed) as exc:
            self._work = None
            self._say(str(exc))
        except BaseException:
            self._work = None
            raise
        else:
            self._say("")

    async def _prune(self, work: Checkpointing) -> None:
        """Prune what was archived, now and then; that this fails does not keep new ones from being made."""
        if time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + self._prune_every
        try:
            if await work.prune():
                self._prune_at = 0.0
        except IntegrityFailure as exc:
            _log.error("%r does not prune checkpoints: %s", self, exc)

    async def _begun(self, row: ClusterRow) -> Checkpointing:
        nodes = await self._handles.live_nodes()
        givers = [self._handles.seal_state(), *(self._handles.key_holder(node) for node in nodes)]
        root = await recover(givers, self._psk, row, node=self._node)
        try:
            work = await Checkpointing.begin(self._database, root, row)
        finally:
            root.wipe()
        self._seal_epoch = row.seal_epoch
        return work

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._said:
            _log.error("%r makes no checkpoints: %s", self, trouble)
        self._said = trouble
