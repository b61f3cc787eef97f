"""New versions of secrets, many in one transaction.

Writes that wait while a transaction is under way go into the next one. Each is conditional on its own
fence and on the revision of its secret's head, so one that loses does not hinder the others.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal, TypeAlias

import asyncpg
import msgspec

from secrethub.crypto.keyring import Keyring
from secrethub.errors import Unavailable
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence
from secrethub.storage.kv import Head, columns, head_mac

Result = Literal["done", "stale", "moved"]
"""``stale``: the fence is old. ``moved``: somebody else wrote first. Nothing happened in either case."""

_BATCH = 256
_BATCH_BYTES = 4 << 20


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


_Waiting: TypeAlias = tuple[_Put, "asyncio.Future[Result]"]


class KvWriter:
    """Collects the writes of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
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
        put = _put(self._number, keyring, fence, head, sealed, change_key)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((put, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="kv-writer")
        return await future

    async def _drain(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                batch = self._taken()
                await self._settle(batch)
        except BaseException:
            # Nobody is left to write: this process is stopping.
            _fail([*batch, *self._waiting], Unavailable("the write was cut off; its outcome is unknown"))
            self._waiting.clear()
            raise

    def _taken(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            one = self._waiting.pop(0)
            batch.append(one)
            size += len(one[0].x)
        return batch

    async def _settle(self, batch: list[_Waiting]) -> None:
        try:
            results = await self._write([put for put, _ in batch])
        except Unavailable as exc:
            _fail(batch, Unavailable(f"{exc.message}; whether the secret was written is unknown"))
        except Exception as exc:  # noqa: BLE001
            # The database refused the statement, so nothing of it happened: one write that it does not
            # take must not be the end of the others.
            if len(batch) == 1:
                _fail(batch, exc)
                return
            for one in batch:
                await self._settle([one])
        else:
            for put, future in batch:
                if not future.done():
                    future.set_result(results[put.n])

    async def _write(self, puts: list[_Put]) -> dict[int, Result]:
        async with self._database.read() as connection:
            return await _write(connection, puts)


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


async def _write(connection: asyncpg.Connection[Any], puts: list[_Put]) -> dict[int, Result]:
    text = msgspec.json.encode(puts).decode()
    rows = await connection.fetch("SELECT * FROM kv_put_many($1::text::json)", text)
    return {row["number"]: row["result"] for row in rows}


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


def _fail(batch: list[_Waiting], exc: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(exc)
