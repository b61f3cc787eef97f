"""Secrets that were read: least recently used go first, each application apart. No IO, no clock.

* An entry answers by itself until its TTL ends or it becomes *outdated* (a push, a new connection,
  a change of policy). Afterwards it may answer only while Core is away, until its stale deadline.
* A value is stored only if nothing about its path moved while it was read (:meth:`Cache.reading`).
* The limits are for all applications together. What is above them is taken from the application
  that holds most, its least recently used entry first: one application cannot push out another
  that holds less.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from agent.clocks import Instant

OVERHEAD = 1024
"""Bytes that an entry costs beside its data and its path: objects, rows of tables, its watch (measured)."""
_BUFFER = 16 * 1024
"""Bytes to begin with; larger values make it grow."""


class Packing:
    """Encodes fields as JSON, in bytes of exactly their size.

    Encoding into a fresh buffer each time would leave holes between the values that stay: a third more
    memory for values of 4 KB (measured).
    """

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray(_BUFFER)

    def pack(self, fields: object) -> bytes:
        """Return the fields as JSON."""
        self._encoder.encode_into(fields, self._buffer)
        return bytes(self._buffer)


class Key(NamedTuple):
    """What an entry answers: which application, which path, which version (None: the newest)."""

    application: str
    path: str
    version: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A secret as it was read.

    Attributes:
        data: its fields, JSON.
        version: the version they are of.
        created_time: when that version was written, RFC 3339.
        fresh_until: until when it answers by itself.
        stale_until: until when it may answer while Core is away.
        outdated: whether something may have changed since it was read.
    """

    data: bytes = field(repr=False)
    version: int
    created_time: str
    fresh_until: Instant
    stale_until: Instant
    outdated: bool = False

    def is_fresh(self, now: Instant) -> bool:
        """Tell whether it answers by itself."""
        return not self.outdated and now.before(self.fresh_until)

    def is_usable(self, now: Instant) -> bool:
        """Tell whether it may answer while Core is away."""
        return now.before(self.stale_until)


@dataclass(kw_only=True, slots=True, eq=False)
class Reading:
    """A read under way. ``moved`` tells that its result may be older than what is known."""

    path: str
    moved: bool = False


class _Slice:
    """One application's entries, the least recently used first."""

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: OrderedDict[Key, Entry] = OrderedDict()
        self.size = 0

    def pop(self, key: Key) -> Entry | None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.size -= cost(key, entry)
        return entry


class Cache:
    """The entries of all applications.

    Args:
        max_entries: of all applications together.
        max_bytes: of all applications together.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._slices: dict[str, _Slice] = {}
        self._readings: set[Reading] = set()

    def __len__(self) -> int:
        return sum(len(held.entries) for held in self._slices.values())

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(held.size for held in self._slices.values())

    def get(self, key: Key) -> Entry | None:
        """Return an entry, fresh or not, and count it as used."""
        held = self._slices.get(key.application)
        if held is None or key not in held.entries:
            return None
        held.entries.move_to_end(key)
        return held.entries[key]

    def peek(self, key: Key) -> Entry | None:
        """Return an entry without counting it as used."""
        held = self._slices.get(key.application)
        return None if held is None else held.entries.get(key)

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[Reading]:
        """Note that ``path`` is being read, for as long as the block lasts."""
        reading = Reading(path=path)
        self._readings.add(reading)
        try:
            yield reading
        finally:
            self._readings.discard(reading)

    def store(self, key: Key, entry: Entry, reading: Reading) -> list[Key]:
        """Keep an entry unless its path moved while it was read.

        Returns:
            The keys of entries that had to go for it (``key`` itself when it is too large).
        """
        if reading.moved:
            return []
        return self._put(key, entry)

    def restore(self, key: Key, entry: Entry) -> list[Key]:
        """Keep an entry of an earlier run: outdated until it has been read again."""
        return self._put(key, replace(entry, outdated=True))

    def changed(self, path: str) -> None:
        """Take note that something about a path changed: what is held or being read is outdated."""
        self._outdate(lambda candidate: candidate == path)

    def changed_all(self) -> None:
        """Take note that anything may have changed."""
        self._outdate(lambda _candidate: True)

    def drop(
        self,
        path: str,
        version: int | None,
        *,
        every_version: bool,
        held_by: Callable[[str], bool] = lambda _application: True,
    ) -> list[Key]:
        """Forget a path for all these applications: the version that was asked for, or all.

        Returns:
            The keys that are gone.
        """
        gone = [
            key
            for application, held in self._slices.items()
            if held_by(application)
            for key in held.entries
            if key.path == path and (every_version or key.version == version)
        ]
        self._remove(gone)
        return gone

    def expire(self, now: Instant) -> list[Key]:
        """Forget what may not answer any more, and return the keys."""
        gone = [
            key
            for held in self._slices.values()
            for key, entry in held.entries.items()
            if not entry.is_usable(now) and not entry.is_fresh(now)
        ]
        self._remove(gone)
        return gone

    def clear(self) -> None:
        """Forget everything; what is being read now is not kept either."""
        self.changed_all()
        self._slices.clear()

    def asked(self, path: str | None = None) -> dict[tuple[str, int | None], set[str]]:
        """Return what is held (of one path): path and version, and the applications that hold it."""
        asked: dict[tuple[str, int | None], set[str]] = {}
        for held in self._slices.values():
            for key in held.entries:
                if path is None or key.path == path:
                    asked.setdefault((key.path, key.version), set()).add(key.application)
        return asked

    def holders(self, path: str, version: int | None) -> set[str]:
        """Return the applications that hold one version of a path (None: the newest)."""
        return {name for name, held in self._slices.items() if Key(name, path, version) in held.entries}

    def _outdate(self, concerns: Callable[[str], bool]) -> None:
        for reading in self._readings:
            if concerns(reading.path):
                reading.moved = True
        for held in self._slices.values():
            for key, entry in list(held.entries.items()):
                if concerns(key.path) and not entry.outdated:
                    held.entries[key] = replace(entry, outdated=True)

    def _put(self, key: Key, entry: Entry) -> list[Key]:
        size = cost(key, entry)
        held = self._slices.setdefault(key.application, _Slice())
        if size > self._max_bytes:
            held.pop(key)
            return [key]
        before = held.entries.get(key)
        if before is not None and before.data == entry.data:
            # Read again, mostly to the same end: keeping the old bytes leaves no hole where they were.
            entry = replace(entry, data=before.data)
        # An entry that is read again keeps its place: only being asked for counts as use.
        held.entries[key] = entry
        held.size += size - (0 if before is None else cost(key, before))
        return self._shrink()

    def _shrink(self) -> list[Key]:
        gone = []
        while (crowded := len(self) > self._max_entries) or self.size > self._max_bytes:
            largest = max(self._slices.values(), key=lambda s: len(s.entries) if crowded else s.size)
            oldest = next(iter(largest.entries))
            largest.pop(oldest)
            gone.append(oldest)
        return gone

    def _remove(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._slices[key.application].pop(key)


def cost(key: Key, entry: Entry) -> int:
    """Return the bytes an entry counts for."""
    return OVERHEAD + len(key.path) + len(entry.data)
