"""A new data key in the keyring. Done by SealState alone: it takes the root key to seal the keyring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from actors.root_key import RootKey
from actors.seal_journal import SealJournal
from actors.tree import SEAL_STATE
from secrethub.audit.event import Origin
from secrethub.crypto.keyring import Keyring, wrap
from secrethub.errors import Conflict, Stale
from secrethub.storage.data_keys import replace_keyring
from secrethub.storage.database import Database
from secrethub.storage.seal_store import ClusterRow

_OPERATION = "sys.rotate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A rotation that was asked for.

    Attributes:
        after: number of the data key that was the newest for whoever asked.
        origin: who that is.
        now: the instant.
        incarnation: SealState's.
    """

    after: int
    origin: Origin | None
    now: datetime
    incarnation: int | None


async def add_data_key(
    database: Database, journal: SealJournal, root: RootKey, row: ClusterRow, asked: Asked
) -> int:
    """Add a data key, unless there is one after ``asked.after`` already; return the newest one's number.

    Args:
        database: where.
        journal: of the seal; the key is written down there before it is committed.
        root: the root key.
        row: the cluster's row, read just now.
        asked: what for.

    Raises:
        Stale: a newer SealState exists; nothing happened.
        Conflict: the cluster was sealed meanwhile; nothing happened.
        Unavailable: the database does not answer; whether the key was added may be unknown.
    """
    keyring = root.keyring(row)
    try:
        if keyring.newest != asked.after:
            return keyring.newest
        rotated = keyring.rotated(int(asked.now.timestamp()))
    finally:
        keyring.wipe()
    try:
        await _commit(database, journal, root, row, rotated, asked)
        return rotated.newest
    finally:
        rotated.wipe()


async def _commit(
    database: Database, journal: SealJournal, root: RootKey, row: ClusterRow, keyring: Keyring, asked: Asked
) -> None:
    number = keyring.newest
    detail = {"term": number}
    await journal.record(asked.origin, _OPERATION, "intent", detail=detail)
    wrapped = wrap(root.reveal(), keyring, row.cluster_id, row.keyring_revision + 1)
    try:
        await replace_keyring(database, row, wrapped, number, writer=SEAL_STATE, epoch=asked.incarnation)
    except (Stale, Conflict) as exc:
        await journal.record(asked.origin, _OPERATION, "refused", reason=exc.code, detail=detail)
        raise
    await journal.record(asked.origin, _OPERATION, "done", detail=detail)
