"""Writes to authority rows within one transaction. See ``authority.py`` for the rules.

A row is only touched under the lock of its bucket, and a bucket is checked as a whole when it is locked.
So a change is never built on a row that a reader would refuse, and two transactions that touch tables in
the order of their constants, and buckets of one table in ascending order, never wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import asyncpg

from secrethub.audit.state import written_row
from secrethub.errors import Conflict, IntegrityFailure
from secrethub.storage.authority_rows import (
    MODULUS,
    Bucket,
    Row,
    Table,
    bucket_mac,
    checked_bucket,
    encode_body,
    item,
    row_mac,
    verified,
)

_ATTEMPTS = 20


class Change:
    """Writes within one transaction of :meth:`Authority.change` or :meth:`Authority.issue`."""

    def __init__(
        self,
        connection: asyncpg.Connection[Any],
        secret: bytes,
        floors: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self.connection = connection
        self.written: list[dict[str, Any]] = []
        """Every write, for the ledger (``audit/state.py``); a deletion has its bucket's revision, no mac."""
        self._secret = secret
        self._floors = floors or {}
        self._held: dict[tuple[str, int], Bucket] = {}

    async def get(self, table: Table, key: str) -> Row | None:
        """Return the row, verified, and locked until the transaction ends.

        Raises:
            IntegrityFailure: its authentication, or its bucket's, is wrong.
        """
        bucket = await self._bucket(table, key)
        if bucket is None or key not in bucket.rows:
            return None
        rows = await self._rows(table, [key])
        if not rows:
            raise IntegrityFailure(table.name, key, "the row was removed")
        return rows[0]

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
        """Insert or replace a row.

        Args:
            table: where.
            key: primary key.
            body: plain JSON values: strings, integers, booleans, null, lists, objects.
            owner: what the row belongs to.
            expires_at: when it ends by itself.
            expected_revision: 0 for "must not exist"; None for whatever is there.

        Raises:
            Conflict: another revision is there.
            IntegrityFailure: what is there is not authentic.
        """
        bucket = await self._bucket(table, key) or await self._new_bucket(table, key)
        row, authentication = self._place(table, bucket, key, body, owner, expires_at, expected_revision)
        bucket.revision += 1
        await self._store(table, [bucket])
        await self.connection.execute(
            f"""INSERT INTO {table.name} (key, revision, body, owner, expires_at, bucket, mac)
                VALUES ($1, $2, $3::text::jsonb, $4, $5, $6, $7)
                ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body,
                    owner = excluded.owner, expires_at = excluded.expires_at, mac = excluded.mac""",  # noqa: S608
            key,
            row.revision,
            encode_body(body),
            owner,
            expires_at,
            bucket.number,
            authentication,
        )
        self._note(table, key, row.revision, authentication)
        return row

    def _place(
        self,
        table: Table,
        bucket: Bucket,
        key: str,
        body: Mapping[str, Any],
        owner: str | None,
        expires_at: datetime | None,
        expected_revision: int | None,
    ) -> tuple[Row, bytes]:
        """Put a row into its bucket in memory; return it with its authentication.

        Raises:
            Conflict: another revision is there.
        """
        old = bucket.rows.get(key)
        revision = old[0] if old is not None else 0
        if expected_revision is not None and expected_revision != revision:
            raise Conflict(f"{table.name} {key} exists already" if old else f"{table.name} {key} has changed")
        # Revisions start beyond every one that this bucket has seen, so that a row made again after
        # a deletion never repeats a former (key, revision).
        row = Row(
            table=table.name,
            key=key,
            revision=max(revision, bucket.revision) + 1,
            body=body,
            owner=owner,
            expires_at=expires_at,
        )
        authentication = row_mac(self._secret, row)
        self._take_out(table, bucket, key)
        bucket.rows[key] = (row.revision, authentication)
        bucket.total += item(self._secret, table.name, key, row.revision, authentication)
        return row, authentication

    async def delete(self, table: Table, key: str) -> bool:
        """Delete a row; tell whether it was there.

        Raises:
            IntegrityFailure: what is there is not authentic.
        """
        rows, failures = await self.delete_many(table, [key])
        for failure in failures:
            raise failure
        return bool(rows)

    async def delete_many(
        self, table: Table, keys: Collection[str]
    ) -> tuple[list[Row], list[IntegrityFailure]]:
        """Delete rows in a few statements, however many they are.

        Returns:
            The rows that were there, and why others were left alone: they, or rows in their buckets,
            are not authentic.
        """
        wanted: dict[int, list[str]] = {}
        for key in keys:
            wanted.setdefault(table.bucket(key), []).append(key)
        buckets, failures = await self._lock(table, wanted)
        present = [key for n, bucket in buckets.items() for key in wanted[n] if key in bucket.rows]
        rows: list[Row] = []
        for row in await self._rows(table, present, failures):
            rows.append(row)
            self._take_out(table, buckets[table.bucket(row.key)], row.key)
        if rows:
            touched = [buckets[number] for number in sorted({table.bucket(row.key) for row in rows})]
            for bucket in touched:
                bucket.revision += 1
            for row in rows:
                self._note(table, row.key, buckets[table.bucket(row.key)].revision, b"")
            await self._store(table, touched)
            await self.connection.execute(
                f"DELETE FROM {table.name} WHERE key = ANY($1::text[])",  # noqa: S608 - a constant of ours
                [row.key for row in rows],
            )
        return rows, failures

    async def _rows(
        self, table: Table, keys: Collection[str], failures: list[IntegrityFailure] | None = None
    ) -> list[Row]:
        """Return rows whose buckets are held; those edited meanwhile go to ``failures``, if given."""
        records = await self.connection.fetch(
            f"""SELECT key, revision, body::text AS body, owner, expires_at, mac FROM {table.name}
                WHERE key = ANY($1::text[]) ORDER BY key""",  # noqa: S608 - a constant of ours
            list(keys),
        )
        rows = []
        for record in records:
            held = self._held[table.name, table.bucket(record["key"])].rows
            try:
                if held.get(record["key"]) != (record["revision"], record["mac"]):
                    raise IntegrityFailure(table.name, record["key"], "the row was edited")
                rows.append(verified(self._secret, table, record))
            except IntegrityFailure as exc:
                if failures is None:
                    raise
                failures.append(exc)
        return rows

    async def _bucket(self, table: Table, key: str) -> Bucket | None:
        """Return the key's bucket, locked and checked; None when there is none."""
        number = table.bucket(key)
        buckets, failures = await self._lock(table, {number: [key]})
        for failure in failures:
            raise failure
        return buckets.get(number)

    async def _new_bucket(self, table: Table, key: str) -> Bucket:
        empty = bytes(32)
        number = table.bucket(key)
        await self.connection.execute(
            """INSERT INTO authority_buckets VALUES ($1, $2, 0, $3, $4) ON CONFLICT DO NOTHING""",
            table.name,
            number,
            empty,
            bucket_mac(self._secret, table.name, number, 0, empty),
        )
        made = await self._bucket(table, key)
        if made is None:
            raise IntegrityFailure(table.name, key, "its bucket is missing")
        return made

    async def _lock(
        self, table: Table, wanted: Mapping[int, Collection[str]]
    ) -> tuple[dict[int, Bucket], list[IntegrityFailure]]:
        """Lock and check buckets; return those that exist by number, and what is wrong with others."""
        found = {n: self._held[table.name, n] for n in wanted if (table.name, n) in self._held}
        missing = sorted(set(wanted) - set(found))
        failures: list[IntegrityFailure] = []
        if not missing:
            return found, failures
        floors = {number: self._floors.get((table.name, number), 0) for number in missing}
        heads, rows = await self._locked_in_order(table, missing)
        for number in missing:
            try:
                bucket = checked_bucket(
                    self._secret,
                    table,
                    number,
                    heads.get(number),
                    rows[number],
                    floor=floors[number],
                    key=min(wanted[number]),
                )
            except IntegrityFailure as exc:
                failures.append(exc)
                continue
            if bucket is not None:
                found[number] = self._held[table.name, number] = bucket
        return found, failures

    async def _locked_in_order(
        self, table: Table, numbers: list[int]
    ) -> tuple[dict[int, Any], dict[int, dict[str, tuple[int, bytes]]]]:
        """As :meth:`_locked`, again if a bucket was made between its two statements.

        Of several the locks are let go of before: the new one may come before them.
        """
        for _ in range(_ATTEMPTS):
            several = self.connection.transaction() if len(numbers) > 1 else None
            if several is not None:
                await several.start()
            heads, rows = await self._locked(table, numbers)
            if not any(rows[number] and number not in heads for number in numbers):
                if several is not None:
                    await several.commit()
                break
            if several is not None:
                await several.rollback()
        return heads, rows

    async def _locked(
        self, table: Table, numbers: list[int]
    ) -> tuple[dict[int, Any], dict[int, dict[str, tuple[int, bytes]]]]:
        """Lock buckets that exist; return their own rows and, of all, what is in them."""
        heads = await self.connection.fetch(
            """SELECT bucket, revision, digest, mac FROM authority_buckets
               WHERE table_name = $1 AND bucket = ANY($2::integer[]) ORDER BY bucket FOR UPDATE""",
            table.name,
            numbers,
        )
        rows: dict[int, dict[str, tuple[int, bytes]]] = {number: {} for number in numbers}
        for row in await self.connection.fetch(
            f"SELECT bucket, key, revision, mac FROM {table.name} WHERE bucket = ANY($1::integer[])",  # noqa: S608
            numbers,
        ):
            rows[row["bucket"]][row["key"]] = (row["revision"], row["mac"])
        return {head["bucket"]: head for head in heads}, rows

    def _take_out(self, table: Table, bucket: Bucket, key: str) -> None:
        old = bucket.rows.pop(key, None)
        if old is not None:
            bucket.total -= item(self._secret, table.name, key, *old)

    # Buckets are written before rows: the rows' trigger announces the bucket's new revision.
    async def _store(self, table: Table, buckets: Collection[Bucket]) -> None:
        for bucket in buckets:
            bucket.total %= MODULUS
        digests = [bucket.total.to_bytes(32, "big") for bucket in buckets]
        await self.connection.execute(
            """UPDATE authority_buckets b SET revision = u.revision, digest = u.digest, mac = u.mac
               FROM unnest($2::integer[], $3::bigint[], $4::bytea[], $5::bytea[])
                   AS u(bucket, revision, digest, mac)
               WHERE b.table_name = $1 AND b.bucket = u.bucket""",
            table.name,
            [bucket.number for bucket in buckets],
            [bucket.revision for bucket in buckets],
            digests,
            [
                bucket_mac(self._secret, table.name, bucket.number, bucket.revision, digest)
                for bucket, digest in zip(buckets, digests, strict=True)
            ],
        )

    def _note(self, table: Table, key: str, revision: int, authentication: bytes) -> None:
        self.written.append(written_row(table.name, key, revision, authentication))
