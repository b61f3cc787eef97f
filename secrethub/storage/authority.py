"""Rows that decide authority, each authenticated, so that a database writer cannot give himself a right.

Every row carries an HMAC under a derived key over table, primary key, revision and every column. That
alone would let an old row be put back. So rows are grouped in buckets by the hash of their key, and a
bucket carries a keyed sum over its rows' authentications (an additive multiset hash after Clarke,
Devadas, van Dijk, Gassend and Suh, 2003, with HMAC-SHA256 as the keyed function, modulo 2^256), its own
revision and an HMAC. Reading one row reads its bucket in the same statement: an edited, inserted,
removed or put-back row makes the sum wrong. Putting a whole bucket back with its row of
``authority_buckets`` shows as a bucket revision below what this process was told of.

Rules:

- A *change* takes rights away or alters them: exclusive freshness lock, generation + 1. It is
  effective on every node before it returns, because every answer passes a commit that shows it.
- An *issue* only adds rows or counts uses: shared lock, no new generation. Several rows in one issue
  are written in the order of the constants below, so that two issues never wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure
from secrethub.storage.authority_change import Change
from secrethub.storage.authority_rows import (
    ACCESSORS,
    AGENTS,
    APPROLES,
    AUDIT_SETTINGS,
    BINDINGS,
    CERT_ROLES,
    CERTIFICATE_AUTHORITIES,
    CUBBYHOLES,
    ENGINE_CONFIGS,
    ENGINE_ROLES,
    LOGIN_FAILURES,
    MOUNTS,
    PASSWORD_POLICIES,
    PKI_ROLES,
    POLICIES,
    QUOTAS,
    ROLE_IDS,
    ROTATIONS,
    SECRET_IDS,
    SETTINGS,
    TABLES,
    TOKEN_ROLES,
    TOKENS,
    USERS,
    Row,
    Table,
    check_head,
    checked_bucket,
    verified,
)
from secrethub.storage.authority_together import Together
from secrethub.storage.database import Database
from secrethub.storage.fence import Fence, Turns, hold_exclusive, hold_shared
from secrethub.storage.freshness import Caches, Changed

__all__ = [
    "ACCESSORS",
    "AGENTS",
    "APPROLES",
    "AUDIT_SETTINGS",
    "BINDINGS",
    "CERTIFICATE_AUTHORITIES",
    "CERT_ROLES",
    "CUBBYHOLES",
    "ENGINE_CONFIGS",
    "ENGINE_ROLES",
    "LOGIN_FAILURES",
    "MOUNTS",
    "PASSWORD_POLICIES",
    "PKI_ROLES",
    "POLICIES",
    "QUOTAS",
    "ROLE_IDS",
    "ROTATIONS",
    "SECRET_IDS",
    "SETTINGS",
    "TABLES",
    "TOKENS",
    "TOKEN_ROLES",
    "USERS",
    "Authority",
    "Change",
    "Row",
    "Table",
]

_CACHED = 100_000
_NEVER = 1 << 62

_log = logging.getLogger(__name__)


class Authority:
    """Reads and changes authority rows. One a process; rows are cached until a change is announced."""

    def __init__(
        self,
        database: Database,
        caches: Caches,
        keyring: Callable[[], Keyring],
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            database: where the rows are.
            caches: announces what changed.
            keyring: gives the keyring or raises ``Sealed``.
            notify: called after a commit that others should hear of.
        """
        self._database = database
        self._caches = caches
        self._keyring = keyring
        self._notify = notify
        self._floors: dict[tuple[str, int], int] = {}
        self.turns = Turns(database)
        self.together = Together(database, self._secret, self._floors, notify)
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()
        self._flushes = 0
        self._floors_of = 0
        """How often everything had been dropped when the floors were read last."""
        self._loading = asyncio.Lock()
        self._sizes = {table.name: table for table in TABLES}
        caches.subscribe(self._announced)
        caches.on_flush(self._flushed)

    def _secret(self) -> bytes:
        return self._keyring().derived("authority")

    def _announced(self, change: Changed) -> None:
        if change.kind not in {"authority", "issued"}:
            return
        name, _, key = change.key.partition("/")
        self._rows.pop((name, key), None)
        table = self._sizes.get(name)
        if table is not None:
            place = (name, table.bucket(key))
            self._floors[place] = max(self._floors.get(place, 0), change.version)

    def _flushed(self) -> None:
        self._rows.clear()
        # Announcements may have been missed, and with them how far buckets have come.
        self._flushes += 1

    def drop(self) -> None:
        """Forget every row, for instance because the keys were wiped."""
        self._rows.clear()

    async def load_floors(self) -> None:
        """Learn the present revision of every bucket, so that none can go back from now on.

        One that is not authentic is refused from now on, whatever is put in its place.
        """
        key = self._keyring().derived("authority")
        flushes = self._flushes
        async with self._database.read() as connection:
            rows = await connection.fetch(
                "SELECT table_name, bucket, revision, digest, mac FROM authority_buckets"
            )
        for row in rows:
            place = (row["table_name"], row["bucket"])
            try:
                check_head(key, *place, row)
                reached = row["revision"]
            except IntegrityFailure as exc:
                # What it had reached cannot be known, so nothing that is put there is taken either.
                _log.error("%s", exc)
                reached = _NEVER
            self._floors[place] = max(self._floors.get(place, 0), reached)
        self._floors_of = flushes

    async def get(self, table: Table, key: str) -> Row | None:
        """Return a row, verified, from memory if nothing announced a change.

        Raises:
            IntegrityFailure: the row or its bucket does not carry a valid authentication.
            Sealed: there are no keys.
            Unavailable: the database does not answer.
        """
        self._keyring()
        place = (table.name, key)
        cached = self._rows.get(place)
        if cached is not None:
            self._rows.move_to_end(place)
            return cached
        moves = self._caches.authority_moves
        row = await self.fetch(table, key)
        if row is not None and moves == self._caches.authority_moves:
            self._rows[place] = row
            if len(self._rows) > _CACHED:
                self._rows.popitem(last=False)
        return row

    async def fetch(
        self, table: Table, key: str, connection: asyncpg.Connection[Any] | None = None
    ) -> Row | None:
        """Return a row straight from the database, verified.

        Raises:
            IntegrityFailure, Sealed, Unavailable: as :meth:`get`.
        """
        if connection is not None:
            return await self._fetch(table, key, connection)
        if self._floors_of != self._flushes:
            async with self._loading:
                if self._floors_of != self._flushes:
                    await self.load_floors()
        async with self._database.read() as lent:
            return await self._fetch(table, key, lent)

    async def _fetch(self, table: Table, key: str, connection: asyncpg.Connection[Any]) -> Row | None:
        secret = self._keyring().derived("authority")
        bucket = table.bucket(key)
        # What is announced while the statement is under way may be newer than what it sees.
        floor = self._floors.get((table.name, bucket), 0)
        found = await connection.fetch(
            f"""SELECT b.revision AS bucket_revision, b.digest, b.mac AS bucket_mac, t.key, t.revision,
                       t.mac, CASE WHEN t.key = $3 THEN t.body::text END AS body,
                       CASE WHEN t.key = $3 THEN t.owner END AS owner,
                       CASE WHEN t.key = $3 THEN t.expires_at END AS expires_at
                FROM (SELECT 1) AS one
                LEFT JOIN authority_buckets b ON b.table_name = $1 AND b.bucket = $2
                LEFT JOIN {table.name} t ON t.bucket = $2""",  # noqa: S608 - a constant of ours
            table.name,
            bucket,
            key,
        )
        present = {row["key"]: row for row in found if row["key"] is not None}
        checked_bucket(
            secret,
            table,
            bucket,
            _head(found[0]),
            {name: (row["revision"], row["mac"]) for name, row in present.items()},
            floor=floor,
            key=key,
        )
        return verified(secret, table, present[key]) if key in present else None

    async def everything(self, table: Table) -> tuple[list[Row], dict[int, IntegrityFailure]]:
        """Return every row of a small table, and by its number what is wrong with a bucket.

        Rows of such a bucket are left out, for none can be told from what was inserted. That a row is
        missing is known as well, though not which one.

        Raises:
            Sealed, Unavailable: as :meth:`get`.
        """
        secret = self._keyring().derived("authority")
        floors = {number: self._floors.get((table.name, number), 0) for number in range(table.buckets)}
        async with self._database.read() as connection:
            found = await connection.fetch(
                f"""SELECT COALESCE(b.bucket, t.bucket) AS number, b.revision AS bucket_revision, b.digest,
                           b.mac AS bucket_mac, t.key, t.revision, t.mac, t.body::text AS body, t.owner,
                           t.expires_at
                    FROM (SELECT * FROM authority_buckets WHERE table_name = $1) b
                    FULL JOIN {table.name} t ON t.bucket = b.bucket ORDER BY t.key""",  # noqa: S608
                table.name,
            )
        heads: dict[int, Any] = dict.fromkeys(range(table.buckets))
        present: dict[int, dict[str, Any]] = {}
        for record in found:
            heads[record["number"]] = _head(record)
            if record["key"] is not None:
                present.setdefault(record["number"], {})[record["key"]] = record
        rows: list[Row] = []
        broken: dict[int, IntegrityFailure] = {}
        for number, head in heads.items():
            records = present.get(number, {})
            try:
                checked_bucket(
                    secret,
                    table,
                    number,
                    head,
                    {name: (record["revision"], record["mac"]) for name, record in records.items()},
                    floor=floors.get(number, 0),
                    key=min(records, default=f"bucket {number}"),
                )
                rows += [verified(secret, table, record) for record in records.values()]
            except IntegrityFailure as exc:
                broken[number] = exc
        return rows, broken

    async def keys(
        self, table: Table, *, owner: str | None = None, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[str]:
        """Return keys in order, at most ``limit``, after ``after``. Each row is verified when it is read."""
        async with self._database.read() as connection:
            rows = await connection.fetch(
                f"""SELECT key FROM {table.name}
                    WHERE key > $1 AND starts_with(key, $2) AND ($3::text IS NULL OR owner = $3)
                    ORDER BY key LIMIT $4""",  # noqa: S608 - a constant of ours
                after,
                prefix,
                owner,
                limit,
            )
        return [row["key"] for row in rows]

    @asynccontextmanager
    async def change(self, fence: Fence) -> AsyncIterator[Change]:
        """Open a transaction that changes authority.

        Args:
            fence: the :class:`~secrethub.engines.engine.Fence` of the decision; what was written is added.

        Raises:
            Stale: the decision is older than the database; nothing happened.
        """
        secret = self._keyring().derived("authority")
        async with self.turns.alone(fence), self._database.write() as connection:
            generation = await hold_exclusive(connection, fence)
            change = Change(connection, secret, self._floors)
            yield change
        fence.written.extend(change.written)
        self._caches.expect(generation)
        self._notify()

    @asynccontextmanager
    async def issue(self, fence: Fence) -> AsyncIterator[Change]:
        """Open a transaction that adds rows or counts uses; what was written is added to the fence.

        Raises:
            Stale: the decision is older than the database; nothing happened.
        """
        secret = self._keyring().derived("authority")
        async with self._database.write() as connection:
            await hold_shared(connection, fence)
            change = Change(connection, secret, self._floors)
            yield change
        fence.written.extend(change.written)
        self._notify()


def _head(record: Any) -> dict[str, Any] | None:
    if record["bucket_revision"] is None:
        return None
    return {"revision": record["bucket_revision"], "digest": record["digest"], "mac": record["bucket_mac"]}
