"""Comparing the secrets with what the ledger says of them (``audit/state.py``).

Each secret has a revision of its own, which only grows. What the ledger knows must be there with at least the
revision that it knows, or have an end (``kv_ends.py``). What the ledger does not know has no entry yet,
unless it is from a time whose entries were pruned: what is left from then was said again
(:func:`to_say_again`).

Everything happens in the snapshot in which the ledger was verified. Secrets are looked at in slices by their
ids, so that memory does not grow with their number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
import msgspec

from secrethub.audit.state import SECRETS, Written, written_in
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure
from secrethub.storage import kv, kv_ends
from secrethub.storage.ledger_read import entries_naming
from secrethub.storage.state_check import MOST, BadRow, Checked

_SLICE = 300_000
"""Secrets of a slice, about."""
_PAGE = 1000
_VALUES = "kv_versions"


class _Known(NamedTuple):
    """What the ledger says of a secret. ``mac`` is empty when it was removed."""

    revision: int
    mac: str
    stream: str
    number: int


async def check_secrets(
    connection: asyncpg.Connection[Any], keyring: Keyring, until: int, into: Checked
) -> None:
    """Check every secret.

    Args:
        connection: in the snapshot.
        keyring: authenticates heads.
        until: instant up to which entries were pruned, in microseconds since the epoch.
        into: takes what is found.
    """
    count = await connection.fetchval(
        "SELECT GREATEST(reltuples, 0)::bigint FROM pg_class WHERE oid = 'kv_secrets'::regclass"
    )
    digits = 0 if count < _SLICE else 1 if count < 16 * _SLICE else 2
    for number in range(16**digits):
        beginning = f"{number:0{digits}x}" if digits else ""
        await _check_slice(connection, keyring, beginning, until, into)


async def _check_slice(
    connection: asyncpg.Connection[Any], keyring: Keyring, beginning: str, until: int, into: Checked
) -> None:
    known: dict[str, _Known] = {}
    async for stream, number, _, detail in entries_naming(connection, SECRETS, signed=True):
        for one in written_in(detail):
            if one.table == SECRETS and one.key.startswith(beginning):
                before = known.get(one.key)
                if before is None or one.revision > before.revision:
                    known[one.key] = _Known(one.revision, one.mac, stream, number)
    after, key = beginning, keyring.derived("kv")
    while rows := await connection.fetch(
        "SELECT * FROM kv_secrets WHERE id > $1 AND starts_with(id, $2) ORDER BY id LIMIT $3",
        after,
        beginning,
        _PAGE,
    ):
        after = rows[-1]["id"]
        into.rows += len(rows)
        heads = []
        for row in rows:
            said = known.pop(row["id"], None)
            try:
                head = kv.checked_head(row, key)
            except IntegrityFailure:
                _tell(into, row["id"], "edited", said)
                continue
            heads.append(head)
            reason = _reason(head, row["mac"], said, until)
            if reason:
                _tell(into, head.id, reason, said)
            else:
                into.unrecorded += said is None or head.revision > said.revision
        await _check_values(connection, heads, into)
        await asyncio.sleep(0)
    gone = [identifier for identifier, said in known.items() if said.mac]
    for first in range(0, len(gone), _PAGE):
        page = gone[first : first + _PAGE]
        ends = await kv_ends.among(connection, keyring, page)
        for identifier in page:
            if ends.get(identifier, 0) > known[identifier].revision:
                into.unrecorded += 1
            else:
                _tell(into, identifier, "removed", known[identifier])


def _reason(head: kv.Head, authentication: bytes, said: _Known | None, until: int) -> str:
    """Return what is wrong with an authentic head, or nothing."""
    if said is None:
        # Whatever was changed since is in the ledger; what is left from before was said again.
        return "put back" if head.updated_at <= until else ""
    return "" if _goes_on(head, authentication, said) else "put back"


async def _check_values(connection: asyncpg.Connection[Any], heads: Sequence[kv.Head], into: Checked) -> None:
    """Check that the values are there that the heads speak of, and no others."""
    rows = await connection.fetch(
        "SELECT id, version FROM kv_versions WHERE id = ANY($1::text[])", [head.id for head in heads]
    )
    there = {(row["id"], row["version"]) for row in rows}
    wanted = {
        (head.id, head.oldest_version + place)
        for head in heads
        for place, state in enumerate(head.versions)
        if not state.destroyed
    }
    for identifier, version in sorted(wanted - there):
        _tell(into, f"{identifier}/{version}", "removed", None, table=_VALUES)
    for identifier, version in sorted(there - wanted):
        _tell(into, f"{identifier}/{version}", "inserted", None, table=_VALUES)


def _tell(into: Checked, key: str, reason: str, said: _Known | None, *, table: str = SECRETS) -> None:
    if len(into.bad) < MOST:
        stream, number = ("", 0) if said is None else (said.stream, said.number)
        into.bad.append(BadRow(table=table, key=key, reason=reason, stream=stream, number=number))


async def to_say_again(
    connection: asyncpg.Connection[Any],
    keyring: Keyring,
    known: Mapping[str, Written],
    since: int,
    until: int,
) -> list[dict[str, Any]]:
    """Return what the ledger must say of secrets before entries go, as ``audit/state.py`` has it.

    Of each secret that these entries name what it is now, or what they say where it is something else or
    gone, so that this is still found afterwards. Also of those that were changed at the time and that no
    entry names, because whoever changed them died.

    Args:
        connection: for reading.
        keyring: authenticates heads.
        known: the newest that these entries say of each secret, by its id.
        since: instant up to which entries went before.
        until: instant of the newest of these entries.
    """
    key, said = keyring.derived("kv"), []
    gone = set(known)
    for row in await _changed(connection, list(known), since, until):
        before = known.get(row["id"])
        gone.discard(row["id"])
        try:
            head = kv.checked_head(row, key)
        except IntegrityFailure:
            head = None
        if head is not None and (before is None or _goes_on(head, row["mac"], before)):
            said.append(kv.written(keyring, head))
        elif before is not None:
            said.append(msgspec.to_builtins(before))
    ended = await kv_ends.among(connection, keyring, gone)
    return said + [
        msgspec.to_builtins(known[identifier])
        for identifier in sorted(gone)
        if known[identifier].mac and ended.get(identifier, 0) <= known[identifier].revision
    ]


async def _changed(
    connection: asyncpg.Connection[Any], identifiers: Collection[str], since: int, until: int
) -> list[Any]:
    """Return the heads of these secrets, and of those changed at the time that were not removed since."""
    found: list[Any] = await connection.fetch(
        """SELECT s.* FROM kv_secrets s LEFT JOIN kv_ends e USING (id)
           WHERE s.id = ANY($1::text[]) OR (s.updated_at > $2 AND s.updated_at <= $3 AND e.id IS NULL)""",
        list(identifiers),
        since,
        until,
    )
    return found


def _goes_on(head: kv.Head, authentication: bytes, before: Written | _Known) -> bool:
    """Tell whether a head is what was said of it, or came after."""
    if not before.mac or head.revision < before.revision:
        return False
    return head.revision > before.revision or authentication.hex() == before.mac
