"""Comparing the rows of leases with what the ledger says of them (``audit/state.py``).

Each lease has a revision of its own. The ledger has an entry once a lease was made or renewed, and one before
the row of a lease that has ended goes. So a row that the ledger knows to be live must be there, with at least
that revision; and one that has ended may only be there on its way out: ordered to end, or over.

Nothing is said again of leases when entries are pruned. Of what was changed before that only the
authentication is looked at.

Everything happens in the snapshot in which the ledger was verified. Leases are looked at in slices by a
digest of their ids, so that memory does not grow with their number.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, NamedTuple

import asyncpg

from secrethub.audit.state import written_in
from secrethub.crypto.keyring import Keyring
from secrethub.errors import IntegrityFailure
from secrethub.leases.lease import Lease
from secrethub.storage import leases
from secrethub.storage.ledger_read import entries_naming
from secrethub.storage.state_check import MOST, BadRow, Checked

_SLICE = 250_000
"""Entries of the ledger for a slice, about; each may speak of a lease."""
_MOST_SLICES = 64
_PAGE = 2000


class _Known(NamedTuple):
    """What the ledger says of a lease. ``mac`` is empty when it has ended."""

    revision: int
    mac: str
    stream: str
    number: int
    at: int


async def check_leases(
    connection: asyncpg.Connection[Any], keyring: Keyring, entries: int, until: int, into: Checked
) -> None:
    """Check every lease.

    Args:
        connection: in the snapshot.
        keyring: authenticates rows.
        entries: how many the ledger has.
        until: instant up to which entries were pruned, in microseconds since the epoch.
        into: takes what is found.
    """
    slices = min(_MOST_SLICES, 1 + entries // _SLICE)
    for place in range(slices):
        known: dict[str, _Known] = {}
        async for stream, number, at, detail in entries_naming(connection, leases.TABLE, signed=True):
            for one in written_in(detail):
                if one.table == leases.TABLE and _slice_of(one.key, slices) == place:
                    before = known.get(one.key)
                    if before is None or one.revision > before.revision:
                        known[one.key] = _Known(one.revision, one.mac, stream, number, at)
        await _check_rows(connection, keyring, (slices, place), known, until, into)
        for identifier, said in sorted(known.items()):
            if said.mac and said.at > until:
                _tell(into, identifier, "removed", said)


async def _check_rows(
    connection: asyncpg.Connection[Any],
    keyring: Keyring,
    which: tuple[int, int],
    known: dict[str, _Known],
    until: int,
    into: Checked,
) -> None:
    """Check the rows of a slice, and take what the ledger says of them out of ``known``."""
    after = ""
    while rows := await connection.fetch(
        f"""SELECT {leases.COLUMNS}, revoked_at IS NOT NULL OR expires_at <= {leases.NOW} AS over FROM leases
            WHERE id > $1 AND ($2 = 1 OR get_byte(sha256(convert_to(id, 'UTF8')), 0) % $2 = $3)
            ORDER BY id LIMIT $4""",  # noqa: S608 - constants of ours
        after,
        *which,
        _PAGE,
    ):
        after = rows[-1]["id"]
        into.rows += len(rows)
        for row in rows:
            said = known.pop(row["id"], None)
            try:
                lease = leases.verified(keyring, row)
            except IntegrityFailure:
                _tell(into, row["id"], "edited", said)
                continue
            if _is_put_back(lease, row["mac"], said, over=row["over"]):
                _tell(into, lease.id, "put back", said)
            elif lease.state == "live" and (said is None or lease.revision > said.revision):
                into.unrecorded += max(lease.issued_at, lease.renewed_at) > until
        await asyncio.sleep(0)


def _is_put_back(lease: Lease, authentication: bytes, said: _Known | None, *, over: bool) -> bool:
    """Tell whether an authentic row is an older one than the ledger knows of."""
    if said is None or lease.revision > said.revision:
        return False
    if said.mac:
        return lease.revision < said.revision or authentication.hex() != said.mac
    # The entry about the end comes before the row goes. An intent that is there again is undone again.
    return not (over or (lease.state == "intent" and said.revision == lease.revision + 1))


def _slice_of(identifier: str, slices: int) -> int:
    return 0 if slices == 1 else hashlib.sha256(identifier.encode()).digest()[0] % slices


def _tell(into: Checked, key: str, reason: str, said: _Known | None) -> None:
    if len(into.bad) < MOST:
        stream, number = ("", 0) if said is None else (said.stream, said.number)
        into.bad.append(BadRow(table=leases.TABLE, key=key, reason=reason, stream=stream, number=number))
