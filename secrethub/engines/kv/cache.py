"""What a process keeps of key/value secrets: newest versions, sealed as they are stored."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TypeAlias
from weakref import WeakValueDictionary

import msgspec

from secrethub.crypto.aead import Place
from secrethub.engines.engine import Context
from secrethub.engines.runtime import Core
from secrethub.errors import IntegrityFailure
from secrethub.storage import kv
from secrethub.storage.freshness import Changed
from secrethub.storage.kv_writer import KvWriter

_CACHED = 50_000
_FLOORS = 200_000
_CACHED_BYTES = 64 << 20
_STATE = 160
"""Bytes that the state of a version takes."""
_AROUND = 500
"""Bytes that are kept with each secret beside its value: where it is at home, what answers say of it."""
_LOOKS = 4
"""How often a secret is looked for again before it counts as put back."""

Found: TypeAlias = tuple[kv.Head, kv.Version | None]


class Kept(msgspec.Struct):
    """What is kept of a secret.

    Attributes:
        found: the head and the newest version.
        place: where the version's value is at home.
        told: what each answer says of the version beside its value; None before the first.
    """

    found: Found
    place: Place | None
    told: msgspec.Raw | None = None


class SecretCache:
    """Newest versions as stored (sealed), until a change is announced. One a process."""

    def __init__(self, core: Core, *, room: int = _CACHED_BYTES) -> None:
        """Begin with nothing.

        Args:
            core: this process.
            room: bytes that are kept at most.
        """
        self._room = room
        self.writer = KvWriter(core.database)
        self._caches = core.caches
        self._ledger = core.ledger
        self._entries: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0
        self._floors: OrderedDict[str, int] = OrderedDict()
        """Revisions that heads are known to have reached, of the secrets that changed last."""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        core.caches.subscribe(self._announced)
        core.caches.on_flush(self._flush)
        core.caches.on_hole(self._floors.clear)
        core.keys.on_wipe(self._flush)

    def turn(self, key: str) -> asyncio.Lock:
        """Return the lock under which writers of one secret try again; it lives while somebody has it."""
        return self._turns.setdefault(key, asyncio.Lock())

    def _flush(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _announced(self, change: Changed) -> None:
        if change.kind == "kv":
            kept = self._entries.get(change.key)
            if kept is not None and not 0 < change.revision <= kept.found[0].revision:
                self._drop(change.key)
            if change.revision:
                self._reached(change.key, change.revision)
            else:
                # Removed: what is made at the same place begins anew.
                self._floors.pop(change.key, None)

    def _reached(self, key: str, revision: int) -> None:
        self._floors[key] = max(revision, self._floors.pop(key, 0))
        if len(self._floors) > _FLOORS:
            self._floors.popitem(last=False)

    def _drop(self, key: str) -> None:
        gone = self._entries.pop(key, None)
        if gone is not None:
            self._bytes -= _size(gone.found)

    def kept(self, key: str) -> Kept | None:
        """Return the head and newest version of a secret if they are here."""
        kept = self._entries.get(key)
        if kept is not None:
            self._entries.move_to_end(key)
        return kept

    async def newest(self, context: Context, path: str) -> Found | None:
        """Return the head and newest version of a secret."""
        key = context.stored(path)
        kept = self.kept(key)
        if kept is not None:
            return kept.found
        position = self._caches.position
        loaded = await self.load(context, path)
        # What was announced while it was read may be newer than what was read.
        if loaded is not None and not self._caches.moved(position, (("kv", key),)):
            self._keep(key, loaded)
        return loaded

    def written(self, key: str, head: kv.Head, sealed: bytes, since: int) -> None:
        """Keep a version that this process has just made the newest.

        Args:
            key: of the secret.
            head: of the secret, as it was written.
            sealed: the version's value.
            since: position of the caches before it was written. Only its own announcement may have come
                after that: whatever else was heard of the secret may have come after it.
        """
        heard = self._caches.heard(since)
        if heard is None:
            return
        told = [change.revision for change in heard if change.kind == "kv" and change.key == key]
        if told in ([], [head.revision]):
            version = kv.Version(version=head.current_version, state=head.versions[-1], sealed=sealed)
            self._keep(key, (head, version))

    def _keep(self, key: str, found: Found) -> None:
        self._drop(key)
        head, version = found
        place = None if version is None else kv.value_place(head.id, version.version)
        self._entries[key] = Kept(found, place)
        self._bytes += _size(found)
        while self._bytes > self._room or len(self._entries) > _CACHED:
            self._drop(next(iter(self._entries)))

    def floor(self, key: str) -> int:
        """Return the revision that a secret is known to have reached; read it before the secret."""
        return self._floors.get(key, 0)

    async def load(self, context: Context, path: str, version: int | None = None) -> Found | None:
        """Return head and version straight from the database.

        Raises:
            IntegrityFailure: they are not authentic, or not as new as this process knows them.
        """
        core, key = context.core, context.stored(path)
        for attempt in range(_LOOKS):
            # What is announced while the statement is under way may be newer than what it sees.
            floor = self.floor(key)
            async with core.database.read() as connection:
                found = await kv.load(connection, core.keyring(), context.mount_id, path, version)
            if not is_behind(found[0] if found is not None else None, floor):
                return found
            await self.catch_up(path, attempt)
        raise AssertionError("the last look returns or raises")

    async def catch_up(self, path: str, attempt: int) -> None:
        """Hear whether a secret that is behind was removed meanwhile, so that it is looked for again.

        Raises:
            IntegrityFailure: this was done often enough: it was put back, or its rows were removed.
        """
        if attempt >= _LOOKS - 1:
            raise IntegrityFailure("kv_secrets", path, "an older state was put back")
        await self._ledger.look()


def is_behind(head: kv.Head | None, floor: int) -> bool:
    """Tell whether a head, or its absence, is older than the revision that the secret has reached.

    It was put back, or it was removed and this process has not heard of that yet.
    """
    return floor > (0 if head is None else head.revision)


def _size(entry: Found) -> int:
    head, version = entry
    value = 0 if version is None else len(version.sealed or b"")
    # Once as it is stored, once in what answers say.
    return _AROUND + value + 2 * len(head.custom_metadata) + _STATE * len(head.versions)
