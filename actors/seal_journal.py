"""How SealState writes down what is done to the seal: signed while it holds the root key, else not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.root_key import RootKey
from secrethub.audit.event import Origin, Outcome
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow
from secrethub.storage.sealed_stream import SealedStream

_ITSELF = Origin()


class SealJournal:
    """SealState's streams of the ledger. One entry at a time."""

    def __init__(self, database: Database, *, node: str) -> None:
        self._database = database
        self._node = node
        self._stream = SealedStream(database, node=node)
        self.signed_with: tuple[RootKey, ClusterRow] | None = None
        """What entries are signed with; None while the root key is not here."""

    async def record(
        self,
        origin: Origin | None,
        operation: str,
        outcome: Outcome,
        *,
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an event down; what it tells of may happen, or be answered, once this returns.

        Raises:
            Unavailable: it could not be made durable.
        """
        keyring = None if self.signed_with is None else self.signed_with[0].keyring(self.signed_with[1])
        try:
            await self._stream.record(
                operation, outcome, keyring=keyring, reason=reason, detail=detail, origin=origin or _ITSELF
            )
        except BaseException:
            # Whether it was stored may be unknown, so that stream is not continued.
            self._stream = SealedStream(self._database, node=self._node)
            raise
        finally:
            if keyring is not None:
                keyring.wipe()

    async def adopt(self, root: RootKey, row: ClusterRow) -> None:
        """Vouch in a signed entry for everything that was written while there was no key.

        Raises:
            Unavailable: it could not be made durable.
        """
        keyring = root.keyring(row)
        try:
            await self._stream.adopt(keyring)
        except BaseException:
            self._stream = SealedStream(self._database, node=self._node)
            raise
        finally:
            keyring.wipe()
