"""New versions of secrets, many in one transaction.

Writes that wait while a transaction is under way go into the next one. Each is conditional on its own
fence and on the revision of its secret's head, so one that loses does not hinder the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import asyncpg
import msgspec

from secrethub.crypto.keyring import Keyring
from secrethub.errors import Unavailable
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence
from secrethub.storage.kv import Head, columns, head_mac
from secrethub.storage.shared_work import SharedWork

Result = Literal["done", "stale", "moved"]
"""``stale``: the fence is old. ``moved``: somebody else wrote first. Nothing happened in either case."""

_BATCH = 256
"""Writes of one transaction at most."""
_BATCH_BYTES = 4 << 20
"""Bytes of their sealed values at most, unless one alone is larger."""


class _Put(msgspec.Struct, frozen=True):
    """One write on its way; the short names are those of ``kv_put_many``."""

    n: int
    g: int
    e: int
    s: str
    p: str
    i: str
    r: int
    v: int
    o: int
    m: int
    c: bool
    d: int
    t: str
    b: int
    u: int
    w: str
    h: bytes
    x: bytes
    k: str


class KvWriter:
    """Collects the writes of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._work: SharedWork[_Put, Result] = SharedWork(
            "kv-writer", self._carry_out, weight=_weight, most=_BATCH_BYTES
        )
        self._number = 0

    async def put(self, keyring: Keyring, fence: Fence, head: Head, sealed: bytes, change_key: str) -> Result:
        """Write a new version; it is durable when this returns ``done``.

        Args:
            keyring: for the authentication.
            fence: what the decision rests on.
            head: the head as it shall be; ``revision`` 1 for a new secret.
            sealed: the value of its newest version.
            change_key: what the change is announced as.

        Raises:
            Unavailable: it could not be written, or that is unknown.
        """
        self._number += 1
        return await self._work.do(_put(self._number, keyring, fence, head, sealed, change_key))

    async def _carry_out(self, puts: Sequence[_Put]) -> list[Result]:
        try:
            async with self._database.read() as connection:
                return await _write(connection, puts)
        except Unavailable as exc:
            raise Unavailable(f"{exc.message}; whether the secret was written is unknown") from exc


async def put_within(
    connection: asyncpg.Connection[Any],
    keyring: Keyring,
    fence: Fence,
    head: Head,
    sealed: bytes,
    change_key: str,
) -> Result:
    """Write a new version within a transaction that does more, as :meth:`KvWriter.put` does by itself."""
    return (await _write(connection, [_put(0, keyring, fence, head, sealed, change_key)]))[0]


async def _write(connection: asyncpg.Connection[Any], puts: Sequence[_Put]) -> list[Result]:
    text = msgspec.json.encode(puts).decode()
    rows = await connection.fetch("SELECT * FROM kv_put_many($1::text::json)", text)
    results = {row["number"]: row["result"] for row in rows}
    return [results[put.n] for put in puts]


def _weight(put: _Put) -> int:
    return max(len(put.x), _BATCH_BYTES // _BATCH)


def _put(number: int, keyring: Keyring, fence: Fence, head: Head, sealed: bytes, change_key: str) -> _Put:
    return _Put(
        number,
        fence.generation,
        fence.seal_epoch,
        *columns(head),
        head_mac(keyring.derived("kv"), head),
        sealed,
        change_key,
    )
