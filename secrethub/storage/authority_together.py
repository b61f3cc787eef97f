"""Issues of several requests in one transaction: they share its statements, its locks and its commit.

Who comes while a transaction is under way goes with the next one. Each member says beforehand which rows it
may touch; their buckets are locked and checked all at once, in the order that everybody keeps. Then the
members do their work one after the other, in memory; one that fails leaves nothing behind and harms no
other. What they wrote goes to the database in a few statements, however many they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import asyncpg

from secrethub.errors import IntegrityFailure, Stale
from secrethub.storage.authority_change import Change
from secrethub.storage.authority_rows import TABLES, Bucket, Row, Table, bucket_mac, encode_body
from secrethub.storage.database import FAILURES, Database
from secrethub.storage.fence import Fence, hold_shared_for
from secrethub.storage.shared_work import SharedWork

_MOST = 64
"""Members of one transaction."""

T = TypeVar("T")
Place: TypeAlias = tuple[Table, str]
"""A row: its table and its key."""
Work: TypeAlias = Callable[[Change], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class _Member:
    fence: Fence
    places: Sequence[Place]
    work: Work[Any]


class Together:
    """Of one process."""

    def __init__(
        self,
        database: Database,
        secret: Callable[[], bytes],
        floors: Mapping[tuple[str, int], int],
        notify: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            database: where the rows are.
            secret: gives what authenticates them, or raises ``Sealed``.
            floors: revisions that buckets are known to have reached.
            notify: called after a commit that others should hear of.
        """
        self._database = database
        self._secret = secret
        self._floors = floors
        self._notify = notify
        self._members: SharedWork[_Member, Any] = SharedWork("issues-together", self._carry_out, most=_MOST)

    async def issue(self, fence: Fence, places: Sequence[Place], work: Work[T]) -> T:
        """Do ``work`` in a transaction that adds rows or counts uses; return its result once it is durable.

        Args:
            fence: of the decision.
            places: every row that the work may touch.
            work: given the transaction; it must not wait for anything else.

        Raises:
            Stale: the decision is older than the database; nothing happened.
            Unavailable: the database does not answer.
        """
        result: T = await self._members.do(_Member(fence, places, work))
        return result

    async def _carry_out(self, members: Sequence[_Member]) -> list[Any]:
        secret = self._secret()
        outcomes: list[Any] = []
        written: list[tuple[_Member, list[dict[str, Any]]]] = []
        async with self._database.write() as connection:
            holds = await hold_shared_for(connection, [member.fence for member in members])
            current = [member for member, held in zip(members, holds, strict=True) if held]
            change = _Gathered(connection, secret, self._floors)
            await change.lock([place for member in current for place in member.places])
            for member, held in zip(members, holds, strict=True):
                if held:
                    outcomes.append(await change.alone(member.work))
                    written.append((member, change.written))
                else:
                    outcomes.append(Stale("authority moved on"))
            await change.flush()
        for member, rows in written:
            member.fence.written.extend(rows)
        self._notify()
        return outcomes


class _Gathered(Change):
    """A change whose writes are kept until :meth:`flush`."""

    def __init__(
        self, connection: asyncpg.Connection[Any], secret: bytes, floors: Mapping[tuple[str, int], int]
    ) -> None:
        super().__init__(connection, secret, floors)
        self._known: dict[tuple[str, str], Row | None] = {}
        """Rows as they are now, also those that were read beforehand; None for deleted ones."""
        self._writes: dict[str, dict[str, tuple[Row, bytes] | None]] = {}
        self._undo: list[Callable[[], None]] = []
        self._broken: dict[tuple[str, int], IntegrityFailure] = {}

    async def lock(self, places: Sequence[Place]) -> None:
        """Lock and check the buckets of rows, make those that do not exist, and read the rows that do."""
        for table in TABLES:
            wanted: dict[int, list[str]] = {}
            for one, key in places:
                if one == table:
                    wanted.setdefault(table.bucket(key), []).append(key)
            if not wanted:
                continue
            found, failures = await self._lock(table, wanted)
            broken = {table.bucket(failure.key): failure for failure in failures}
            self._broken.update({(table.name, number): failure for number, failure in broken.items()})
            missing = sorted(set(wanted) - set(found) - set(broken))
            if missing:
                await self._make(table, missing)
                made, _ = await self._lock(table, {number: wanted[number] for number in missing})
                found |= made
            present = {key for n, bucket in found.items() for key in wanted[n] if key in bucket.rows}
            if present:
                for row in await self._rows(table, present, []):
                    self._known[table.name, row.key] = row

    async def alone(self, work: Work[Any]) -> Any:
        """Do one member's work; return its result, or the exception that it ended with, leaving nothing."""
        self.written = []
        self._undo.clear()
        try:
            return await work(self)
        except FAILURES:
            raise
        except Exception as exc:  # noqa: BLE001 - it is the member's own
            for undo in reversed(self._undo):
                undo()
            self.written = []
            return exc

    async def get(self, table: Table, key: str) -> Row | None:
        """Return the row, as :meth:`Change.get`."""
        self._held_bucket(table, key)
        place = (table.name, key)
        if place in self._known:
            return self._known[place]
        return await super().get(table, key)

    async def put(
        self,
        table: Table,
        key: str,
        body: Mapping[str, Any],
        *,
        owner: str | None = None,
        expires_at: datetime | None = None,
        expected_revision: int | None = None,
    ) -> Row:
        """Insert or replace a row, as :meth:`Change.put`."""
        bucket = self._held_bucket(table, key)
        self._remember(table, bucket, key)
        row, authentication = self._place(table, bucket, key, body, owner, expires_at, expected_revision)
        bucket.revision += 1
        self._known[table.name, key] = row
        self._writes.setdefault(table.name, {})[key] = (row, authentication)
        self._note(table, key, row.revision, authentication)
        return row

    async def delete(self, table: Table, key: str) -> bool:
        """Delete a row, as :meth:`Change.delete`."""
        bucket = self._held_bucket(table, key)
        if key not in bucket.rows:
            return False
        self._remember(table, bucket, key)
        self._take_out(table, bucket, key)
        bucket.revision += 1
        self._known[table.name, key] = None
        self._writes.setdefault(table.name, {})[key] = None
        self._note(table, key, bucket.revision, b"")
        return True

    async def flush(self) -> None:
        """Write everything, buckets before rows."""
        for table in TABLES:
            writes = self._writes.get(table.name, {})
            if not writes:
                continue
            numbers = sorted({table.bucket(key) for key in writes})
            await self._store(table, [self._held[table.name, number] for number in numbers])
            kept = [write for write in writes.values() if write is not None]
            if kept:
                await self._insert(table, kept)
            gone = [key for key, write in writes.items() if write is None]
            if gone:
                await self.connection.execute(
                    f"DELETE FROM {table.name} WHERE key = ANY($1::text[])",  # noqa: S608 - a constant of ours
                    gone,
                )

    def _held_bucket(self, table: Table, key: str) -> Bucket:
        place = (table.name, table.bucket(key))
        if place in self._broken:
            failure = self._broken[place]
            raise IntegrityFailure(failure.table, key, failure.reason)
        if place not in self._held:
            raise AssertionError(f"a row of {table.name} is touched that was not named")
        return self._held[place]

    def _remember(self, table: Table, bucket: Bucket, key: str) -> None:
        """Note how to undo what is about to be done to a row."""
        place, writes = (table.name, key), self._writes.setdefault(table.name, {})
        entry, total, revision = bucket.rows.get(key), bucket.total, bucket.revision
        known, was_known = self._known.get(place), place in self._known
        write, was_written = writes.get(key), key in writes

        def undo() -> None:
            bucket.total, bucket.revision = total, revision
            _restore(bucket.rows, key, entry, there=entry is not None)
            _restore(self._known, place, known, there=was_known)
            _restore(writes, key, write, there=was_written)

        self._undo.append(undo)

    async def _make(self, table: Table, numbers: Sequence[int]) -> None:
        """Make empty buckets; another transaction may have made some meanwhile."""
        empty = bytes(32)
        await self.connection.execute(
            """INSERT INTO authority_buckets
               SELECT $1, u.bucket, 0, $3, u.mac FROM unnest($2::integer[], $4::bytea[]) AS u(bucket, mac)
               ORDER BY u.bucket ON CONFLICT DO NOTHING""",
            table.name,
            list(numbers),
            empty,
            [bucket_mac(self._secret, table.name, number, 0, empty) for number in numbers],
        )

    async def _insert(self, table: Table, writes: Sequence[tuple[Row, bytes]]) -> None:
        rows = [row for row, _ in writes]
        await self.connection.execute(
            f"""INSERT INTO {table.name} (key, revision, body, owner, expires_at, bucket, mac)
                SELECT u.key, u.revision, u.body::jsonb, u.owner, u.expires_at, u.bucket, u.mac
                FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::timestamptz[],
                            $6::integer[], $7::bytea[])
                    AS u(key, revision, body, owner, expires_at, bucket, mac)
                ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body,
                    owner = excluded.owner, expires_at = excluded.expires_at, mac = excluded.mac""",  # noqa: S608
            [row.key for row in rows],
            [row.revision for row in rows],
            [encode_body(row.body) for row in rows],
            [row.owner for row in rows],
            [row.expires_at for row in rows],
            [table.bucket(row.key) for row in rows],
            [authentication for _, authentication in writes],
        )


def _restore(where: dict[Any, Any], key: Any, value: Any, *, there: bool) -> None:
    if there:
        where[key] = value
    else:
        where.pop(key, None)
