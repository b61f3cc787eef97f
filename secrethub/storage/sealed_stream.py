"""The seal's own stream of the ledger: what happens to the seal is written down also without keys.

While sealed, entries are chained but not signed. At the next unseal a signed ``adopt`` entry vouches
for every such stream up to its present end. SealState is the one writer; each incarnation has its own
streams.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import asyncpg

from secrethub.audit.chain import Chain
from secrethub.audit.event import Origin, Outcome, StreamHead, adopt_detail, open_detail, row_from
from secrethub.audit.masking import canonical_json
from secrethub.crypto.keyring import Keyring
from secrethub.errors import Unavailable
from secrethub.ids import new_uuid
from secrethub.storage.database import Database
from secrethub.storage.ledger_rows import APPEND, BEHIND, LATER, NOT_DURABLE, appended

_ITSELF = Origin()


class SealedStream:
    """Writes the seal's events, one commit each."""

    def __init__(
        self,
        database: Database,
        *,
        node: str,
        process: str = "seal-state",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._wall = wall
        self._origin = {"node": node, "process": process}
        self._chain: Chain | None = None
        self._signed = False

    async def record(
        self,
        operation: str,
        outcome: Outcome,
        *,
        keyring: Keyring | None,
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
        origin: Origin = _ITSELF,
    ) -> None:
        """Write one event down, signed when there is a keyring.

        Raises:
            Unavailable: it could not be made durable; do not go on.
        """
        await self._write(
            keyring,
            "event",
            operation=operation,
            outcome=outcome,
            reason=reason,
            detail=dict(detail or {}),
            origin=origin,
        )

    async def adopt(self, keyring: Keyring) -> None:
        """Vouch for every stream that was written without a key and is not adopted yet.

        Raises:
            Unavailable: it could not be made durable.
        """
        async with self._database.read() as connection:
            rows = await connection.fetch(
                """SELECT DISTINCT ON (a.stream) a.stream, a.number, a.hash FROM audit_entries a
                   WHERE a.signature = ''::bytea AND NOT EXISTS (
                       SELECT 1 FROM audit_entries b WHERE b.kind = 'adopt'
                       AND b.signature <> ''::bytea AND strpos(b.detail, a.stream) > 0)
                   ORDER BY a.stream, a.number DESC"""
            )
        if rows:
            heads = [StreamHead(row["stream"], row["number"], row["hash"]) for row in rows]
            await self._write(
                keyring, "adopt", operation="ledger.adopt", outcome="done", text=adopt_detail(heads)
            )

    async def _write(
        self,
        keyring: Keyring | None,
        kind: Literal["event", "adopt"],
        *,
        operation: str,
        outcome: Outcome,
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
        text: str | None = None,
        origin: Origin = _ITSELF,
    ) -> None:
        key = None if keyring is None else keyring.derived("audit-sign")
        try:
            async with self._database.write() as connection:
                at = await connection.fetchval(LATER, int(self._wall() * 1_000_000))
                records = []
                if self._chain is None or self._signed != (key is not None):
                    chain = Chain(new_uuid(), key)
                    before = StreamHead(chain.stream, 0, chain.head)
                    records.append(
                        chain.append(
                            at=at,
                            kind="open",
                            actor="system",
                            operation="ledger.open",
                            outcome="done",
                            detail=open_detail(self._origin),
                        )
                    )
                else:
                    chain = Chain(self._chain.stream, key, self._chain.number, self._chain.head)
                    before = StreamHead(chain.stream, chain.number, chain.head)
                records.append(
                    chain.append(
                        at=at,
                        kind=kind,
                        request_id=origin.request_id,
                        actor=origin.actor,
                        operation=operation,
                        path=origin.path,
                        client=origin.client,
                        door=origin.door,
                        outcome=outcome,
                        reason=reason,
                        detail=canonical_json(dict(detail or {})) if text is None else text,
                    )
                )
                rows = [row_from(record) for record in records]
                if not await connection.fetch(APPEND, *appended(before, rows)):
                    raise Unavailable(NOT_DURABLE)
        except asyncpg.PostgresError as exc:
            if exc.sqlstate != BEHIND:
                raise
            raise Unavailable("the database has lost entries of the audit ledger") from exc
        # Only now: an entry that was not stored leaves the chain where it was.
        self._chain, self._signed = chain, key is not None
