"""Reading secrets for templates and applications: from the cache, from Core, or stale.

* A fresh entry answers at once. Otherwise Core is asked, once for all who want the same, and the
  path is watched before it is read, so that no change is missed in between.
* Core decides about applications that it knows by name each for itself: what it answers one is for
  no other.
* What Core says about the secret (gone, not allowed) is believed at once: the entry goes, and what
  nobody holds is not watched any longer. What the agent may not read goes for all, what a named
  application may not read for that one.
* What could be read but is not watched answers for a short time only: nobody would tell of a change.
* What says nothing about it (Core away, sealed, busy, slow) is bridged by an entry that may still be
  used. Files are not in a hurry and wait longer for Core.
* After a push, a new connection or a change of policy everything concerned is read again in the
  background, spread by jitter, so that what is kept for bad times is what was true last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from agent.backoff import Backoff
from agent.cache import Cache, Entry, Key, Packing
from agent.clocks import Instant
from agent.disk_cache import DiskCache
from agent.grants import named
from agent.outcomes import PASSING
from agent.settings import CacheSettings
from agent.watches import FILES
from secrethub.errors import InvalidPath, NotFound, PermissionDenied, SecretHubError, Unavailable
from secrethub.wire.messages import Result

Source = Literal["core", "shared", "cache", "stale"]
"""``core``: read for this caller. ``shared``: read for another at this moment. ``cache``, ``stale``."""

JITTER = 0.2
"""Seconds within which a change is read again."""
SWEEP = 60.0
"""Seconds between looks for entries that have ended."""
PATIENCE = 15.0
"""Seconds a caller waits altogether; the read itself goes on for the next one."""
BRIEFLY = 2.0
"""Seconds an application waits for Core when an entry can answer instead."""
UNWATCHED = 15
"""Seconds an entry answers by itself when nobody would tell of a change."""
LONGEST_PATH = 1024
"""Characters of a path in the agents' protocol; a longer one would cost the connection."""
_TRIES = 3
"""How often a secret that moves while it is read is read in a row."""
_TOGETHER = 8
"""Background reads at a time."""

_log = logging.getLogger(__name__)


class Core(Protocol):
    """What reading needs of the connection."""

    @property
    def away(self) -> bool:
        """Whether Core has been gone for longer than a moment."""
        ...

    async def read(self, path: str, version: int | None, application: str | None) -> Result:
        """Read a secret, on behalf of an application that Core knows by name or of none."""
        ...

    async def watch(self, path: str, application: str) -> None:
        """Be told of changes, if that can be had."""
        ...

    def is_watched(self, path: str) -> bool:
        """Tell whether changes are told of."""
        ...

    async def unwatch(self, paths: Iterable[str]) -> None:
        """Be told of these no longer."""
        ...

    async def unwatch_all_but(self, keep: set[str]) -> None:
        """Be told of no others."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A secret for a caller, and where it came from."""

    entry: Entry
    source: Source


class _Asked(NamedTuple):
    """What Core is asked once for all who want it: the path, its version, and for which name."""

    path: str
    version: int | None
    named: str | None


@dataclass(kw_only=True, slots=True, eq=False)
class _Flight:
    """A read under way and the applications it is for."""

    task: asyncio.Task[Entry]
    applications: set[str] = field(default_factory=set)


class Reader:
    """Reads secrets.

    Args:
        core: the connection.
        cache: entries in memory.
        disk: their copy on disk, or None.
        settings: lifetimes.
        clocks: reads the wall and the boot clock.
        backoff: source of jitter.
        pinned: the paths that stay watched whether they are cached or not.
        kept: told of the newest versions that the cache has got.
    """

    def __init__(
        self,
        core: Core,
        cache: Cache,
        disk: DiskCache | None,
        settings: CacheSettings,
        clocks: Callable[[], Instant],
        backoff: Backoff,
        pinned: Callable[[], set[str]] = set,
        kept: Callable[[str, int], None] = lambda _path, _version: None,
    ) -> None:
        self._core = core
        self._cache = cache
        self._disk = disk
        self._settings = settings
        self._clocks = clocks
        self._backoff = backoff
        self._pinned = pinned
        self._kept = kept
        self._flights: dict[_Asked, _Flight] = {}
        self._stale_paths: set[str] = set()
        self._stirred = asyncio.Event()
        self._packing = Packing()

    @property
    def cached(self) -> int:
        """Entries in the cache."""
        return len(self._cache)

    async def read(self, application: str, path: str, version: int | None = None) -> Served:
        """Return a secret.

        Args:
            application: whose slice of the cache answers.
            path: ``secrets/…``, canonical.
            version: None for the newest.

        Raises:
            SecretHubError: what Core answered, or Unavailable when nothing can be had.
        """
        if len(path) > LONGEST_PATH:
            raise InvalidPath(f"the path is longer than {LONGEST_PATH} characters")
        key = Key(application, path, version)
        entry = self._cache.get(key)
        now = self._clocks()
        if entry is not None and entry.is_fresh(now):
            return Served(entry=entry, source="cache")
        usable = entry if entry is not None and entry.is_usable(now) else None
        if usable is not None and self._core.away:
            return Served(entry=usable, source="stale")
        try:
            waiting = PATIENCE if usable is None or application == FILES else BRIEFLY
            return await self._join(key, waiting)
        except PASSING as exc:
            if usable is None:
                raise
            _log.warning("answered from the cache", extra={"path": path, "error": exc.code})
            return Served(entry=usable, source="stale")

    def restore(self) -> None:
        """Take over what an earlier run left on disk."""
        if self._disk is not None:
            for key, entry in self._disk.load(self._clocks()):
                self._disk.note_gone(self._cache.restore(key, entry))

    def outdate(self, path: str) -> None:
        """Take note that a path changed, and read it again soon if it is held."""
        self._cache.changed(path)
        self._stale_paths.add(path)
        self._stirred.set()

    def outdate_all(self) -> None:
        """Take note that anything may have changed, and read again what is held."""
        self._cache.changed_all()
        self._stale_paths.update(path for path, _version in self._cache.asked())
        self._stirred.set()

    def forget_all(self) -> None:
        """Destroy everything held, in memory and on disk."""
        self._cache.clear()
        if self._disk is not None:
            self._disk.destroy()

    async def run_refresh(self) -> None:
        """Read again what became outdated, until cancelled."""
        while True:
            await self._stirred.wait()
            await asyncio.sleep(self._backoff.jitter(JITTER))
            self._stirred.clear()
            paths, self._stale_paths = self._stale_paths, set()
            wanted = ((asked, names) for asked, names in self._cache.asked().items() if asked[0] in paths)
            # A few that take turns: a task for each of thousands of entries would be memory for nothing.
            await asyncio.gather(*(self._refresh(wanted) for _ in range(_TOGETHER)))

    async def run_sweep(self) -> None:
        """Forget what has ended and stop watching what nobody wants, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP)
            self._note_gone(self._cache.expire(self._clocks()))
            held = {path for path, _version in self._cache.asked()}
            flying = {asked.path for asked in self._flights}
            await self._core.unwatch_all_but(held | flying | self._pinned())

    async def _refresh(self, wanted: Iterator[tuple[tuple[str, int | None], set[str]]]) -> None:
        for (path, version), applications in wanted:
            keys = [Key(name, path, version) for name in applications]
            try:
                await asyncio.gather(*(self._join(key) for key in keys if not self._is_fresh(key)))
            except SecretHubError as exc:
                _log.info("not read again", extra={"path": path, "error": exc.code})

    async def _join(self, key: Key, patience: float = PATIENCE) -> Served:
        """Read from Core, together with whoever reads the same now."""
        asked = _Asked(key.path, key.version, named(key.application))
        flight = self._flights.get(asked)
        source: Source = "shared"
        if flight is None:
            source = "core"
            flight = _Flight(task=asyncio.create_task(self._fly(key, asked), name=f"read:{key.path}"))
            self._flights[asked] = flight
            flight.task.add_done_callback(lambda task: self._landed(asked, task))
        flight.applications.add(key.application)
        try:
            async with asyncio.timeout(patience):
                return Served(entry=await asyncio.shield(flight.task), source=source)
        except TimeoutError as exc:
            raise Unavailable("Core did not answer in time") from exc

    def _landed(self, asked: _Asked, task: asyncio.Task[Entry]) -> None:
        self._flights.pop(asked, None)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; if nobody does, it is no news

    async def _fly(self, first: Key, asked: _Asked) -> Entry:
        """Read what ``first`` names, for its application and whoever joins."""
        path, version, name = asked
        idle = {path}
        try:
            await self._core.watch(path, first.application)
            for _try in range(_TRIES):
                with self._cache.reading(path) as reading:
                    result = await self._core.read(path, version, name)
                    entry = self._entry(result, watched=self._core.is_watched(path))
                    if not reading.moved:
                        break
            # Whoever holds an older value of it gets this one too: one read does for all.
            holders = {held for held in self._cache.holders(path, version) if named(held) == name}
            for application in self._flights[asked].applications | holders:
                key = Key(application, path, version)
                gone = self._cache.store(key, entry, reading)
                if not reading.moved and key not in gone and self._disk is not None:
                    self._disk.note(key, self._cache.peek(key))  # what is held, not a second copy
                self._note_gone(gone)
                idle.update(other.path for other in gone)
            if version is None and not reading.moved:
                self._kept(path, entry.version)
        except SecretHubError as exc:
            if isinstance(exc, NotFound | PermissionDenied):
                refused = isinstance(exc, PermissionDenied)

                def concerned(held: str) -> bool:
                    return name is None or not refused or named(held) == name

                gone = self._cache.drop(path, version, every_version=refused, held_by=concerned)
                self._note_gone(gone)
            raise
        else:
            return entry
        finally:
            await self._unwatch_idle(idle, asked)

    async def _unwatch_idle(self, paths: set[str], landing: _Asked) -> None:
        """Stop watching those of ``paths`` that nobody holds, reads or keeps in a file."""
        wanted = self._pinned() | {asked.path for asked in self._flights if asked != landing}
        if FILES in self._flights[landing].applications:
            wanted.add(landing.path)
        await self._core.unwatch([path for path in paths - wanted if not self._cache.asked(path)])

    def _is_fresh(self, key: Key) -> bool:
        entry = self._cache.peek(key)
        return entry is not None and entry.is_fresh(self._clocks())

    def _entry(self, result: Result, *, watched: bool) -> Entry:
        now = self._clocks()
        ttl = self._settings.ttl
        return Entry(
            data=self._packing.pack(result.data),
            version=result.version,
            created_time=result.created_time,
            fresh_until=now.after(ttl if watched else min(ttl, UNWATCHED)),
            stale_until=now.after(self._settings.stale),
        )

    def _note_gone(self, keys: Iterable[Key]) -> None:
        if self._disk is not None:
            self._disk.note_gone(keys)
