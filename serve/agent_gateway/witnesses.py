"""Agents as witnesses of the ledger: what they are shown of it, and what they have seen that contradicts it.

A checkpoint that an agent keeps is compared with the database. Only one that contradicts it, and has the
notary's signature, is handed on: the node's key-holder, which has the root key, decides and seals. So agents
that lie, or were revoked, stop nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actors.handles import Handles
from secrethub.audit.checkpoint import Signed, is_signed
from secrethub.audit.witness import contradiction, is_newer, pack, unpack
from secrethub.engines.runtime import Core
from secrethub.engines.system.ledger import authentic_cluster
from secrethub.errors import PermissionDenied, PutBack, SecretHubError
from secrethub.storage import checkpoints
from secrethub.wire.messages import Checkpoint

_TURN = 0.25
"""Seconds between looks at what agents said: those of a herd keep the same checkpoints."""
_RETRY = 2.0
_MOST = 256
"""Different checkpoints that may wait; others come again with their agents."""
_LARGEST = 64 * 1024
"""Bytes of a checkpoint that is shown; the next one is smaller."""

_log = logging.getLogger(__name__)


class Witnesses:
    """Of one process."""

    def __init__(self, core: Core, handles: Handles, newest: Callable[[], Signed | None]) -> None:
        """Prepare.

        Args:
            core: the process's.
            handles: the way to the key-holder.
            newest: the newest checkpoint as this process knows it.
        """
        self._core = core
        self._handles = handles
        self._newest = newest
        self._public = b""
        self._offered: tuple[Signed, Checkpoint] | None = None
        self._waiting: dict[bytes, None] = {}

    def hear(self, witness: bytes) -> None:
        """Take note of the checkpoint that an agent keeps."""
        if len(self._waiting) < _MOST:
            self._waiting[witness] = None

    def checkpoint(self, seen: bytes) -> Checkpoint | None:
        """Return what to show to an agent that keeps ``seen``; None when that is newer, or there is none."""
        newest = self._newest()
        if newest is None or not self._public:
            return None
        try:
            if seen and is_newer(unpack(seen), newest):
                return None
        except ValueError:
            return None
        if self._offered is None or self._offered[0] != newest:
            signed = pack(newest)
            if len(signed) > _LARGEST or not is_signed(newest, self._public):
                return None
            self._offered = newest, Checkpoint(signed=signed, public=self._public)
        return self._offered[1]

    async def run(self) -> None:
        """Compare for ever."""
        while True:
            pause = _TURN
            if self._core.unsealed and (self._waiting or not self._public):
                try:
                    await self._compare()
                except SecretHubError as exc:
                    _log.warning("what agents have seen of the ledger cannot be compared now: %s", exc.code)
                    pause = _RETRY
            await asyncio.sleep(pause)

    async def _compare(self) -> None:
        self._public = (await authentic_cluster(self._core)).notary_public
        for witness in list(self._waiting):
            if await self._contradicts(witness):
                _log.error("an agent has seen more of the ledger than the database has")
                try:
                    await self._handles.key_holder().call("testify", witness)
                except (PermissionDenied, PutBack) as exc:
                    _log.warning("the key-holder has compared it: %s", exc.code)
            self._waiting.pop(witness, None)

    async def _contradicts(self, witness: bytes) -> bool:
        """Tell whether a checkpoint is the notary's and not what the database goes on from."""
        try:
            kept = unpack(witness)
        except ValueError:
            return False
        if kept.checkpoint.cluster != self._core.keys.cluster_id:
            return False
        async with self._core.database.read() as connection:
            newest, same, base = await checkpoints.beside(connection, kept.checkpoint.sequence)
        # The signature last: most agents keep what is there.
        if contradiction(kept, self._public, newest, same, base) is None:
            return False
        return is_signed(kept, self._public)
