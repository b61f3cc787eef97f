"""The cache's encrypted copy on disk, so that an agent may restart while Core is away.

Its key lives on a tmpfs (``$XDG_RUNTIME_DIR`` or ``/run``): it outlives the process, not the boot,
and a stolen disk holds nothing. Without a tmpfs there is no copy on disk. Deadlines are inside the
sealed entries, on the wall clock and the boot clock of one boot; what does not open or has ended is
removed. File names are MACs and tell nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from agent import files
from agent.cache import Entry, Key
from agent.clocks import Instant
from secrethub.crypto.aead import Place, open_sealed, seal
from secrethub.crypto.digests import mac
from secrethub.errors import DecryptionFailed, Misconfigured, NotFound, TooLarge

_DOMAIN = "secrethub/agent-cache/v1"
_MEMORY = frozenset({"tmpfs", "ramfs"})
_OWN = "secrethub-agent"

_log = logging.getLogger(__name__)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    boot_id: str
    application: str
    path: str
    asked: int | None
    data: bytes
    version: int
    created_time: str
    fresh_until: tuple[float, float]
    stale_until: tuple[float, float]

    def __repr__(self) -> str:
        return "_Stored(…)"


class DiskCache:
    """Sealed entries, one file each. Made by :func:`open_disk_cache`.

    Changes are noted at once (:meth:`note`) and written by :meth:`run`, the newest state only.
    """

    def __init__(self, folder: Path, key_file: Path, key: bytes) -> None:
        self._folder = folder
        self._key_file = key_file
        self._key = key
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self._waiting: dict[Key, Entry | None] = {}
        self._noted = asyncio.Event()

    def load(self, now: Instant) -> list[tuple[Key, Entry]]:
        """Return what an earlier run left and may still be used; remove the rest."""
        found = []
        with files.directory(self._folder) as at:
            for name in files.names(at):
                loaded = self._open(at, name)
                if loaded is not None and loaded[1].is_usable(now):
                    found.append(loaded)
                else:
                    files.remove(at, name)
        return found

    def note(self, key: Key, entry: Entry | None) -> None:
        """Note that an entry is to be written, or removed (None)."""
        self._waiting[key] = entry
        self._noted.set()

    def note_gone(self, keys: Iterable[Key]) -> None:
        """Note that entries are to be removed."""
        for key in keys:
            self.note(key, None)

    async def run(self) -> None:
        """Write what is noted, until cancelled; then write what is left."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                await self._noted.wait()
                writing = asyncio.create_task(asyncio.to_thread(self._write, self._take()))
                await asyncio.shield(writing)
        finally:
            if writing is not None:
                await writing
            self._write(self._take())

    def destroy(self) -> None:
        """Remove the key and every entry: nothing of it can be opened again."""
        self._waiting.clear()
        self._key_file.unlink(missing_ok=True)
        with files.directory(self._folder) as at:
            for name in files.names(at):
                files.remove(at, name)

    def _take(self) -> Mapping[Key, Entry | None]:
        taken, self._waiting = self._waiting, {}
        self._noted.clear()
        return taken

    def _write(self, changes: Mapping[Key, Entry | None]) -> None:
        try:
            with files.directory(self._folder) as at:
                for key, entry in changes.items():
                    name = self._name(key)
                    if entry is None:
                        files.remove(at, name)
                    else:
                        sealed = self._seal(name, key, entry)
                        # A crash of the host takes the key with it: waiting for the disk is of no use.
                        files.write(at, name, sealed, files.own_attributes(0o600), durable=False)
        except (OSError, NotFound, Misconfigured) as exc:
            # The cache in memory goes on; the copy on disk is a convenience.
            _log.warning("the disk cache cannot be written", extra={"error": str(exc)})

    def _seal(self, name: str, key: Key, entry: Entry) -> bytes:
        stored = _Stored(
            boot_id=self._boot_id,
            application=key.application,
            path=key.path,
            asked=key.version,
            data=entry.data,
            version=entry.version,
            created_time=entry.created_time,
            fresh_until=entry.fresh_until,
            stale_until=entry.stale_until,
        )
        return seal(self._key, 0, msgspec.msgpack.encode(stored), _place(name))

    def _open(self, at: int, name: str) -> tuple[Key, Entry] | None:
        try:
            found = files.read(at, name)
            if found is None:
                return None
            opened = open_sealed(self._key, found.content, _place(name))
            stored = msgspec.msgpack.decode(opened, type=_Stored)
        except (DecryptionFailed, Misconfigured, TooLarge, msgspec.MsgspecError):
            return None
        if stored.boot_id != self._boot_id:
            return None
        entry = Entry(
            data=stored.data,
            version=stored.version,
            created_time=stored.created_time,
            fresh_until=Instant(*stored.fresh_until),
            stale_until=Instant(*stored.stale_until),
        )
        return Key(stored.application, stored.path, stored.asked), entry

    def _name(self, key: Key) -> str:
        return mac(self._key, _DOMAIN, key.application, key.path, key.version).hex()


def open_disk_cache(state_dir: Path, runtime_dirs: Iterable[Path]) -> DiskCache | None:
    """Open the disk cache of a state directory; None, with a warning, when no tmpfs can hold its key.

    Args:
        state_dir: the agent's private directory.
        runtime_dirs: where to look for a tmpfs, the best first.
    """
    name = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:32] + ".key"
    candidates = list(runtime_dirs)
    for runtime_dir in candidates:
        with contextlib.suppress(OSError, NotFound, Misconfigured):
            if not in_memory(runtime_dir):
                continue
            own = _private(runtime_dir / _OWN)
            folder = _private(state_dir / "cache")
            return DiskCache(folder, own / name, _key(own, name))
    _log.warning(
        "no copy of the cache on disk: its key needs a tmpfs that this process may use",
        extra={"tried": [str(candidate) for candidate in candidates]},
    )
    return None


def in_memory(path: Path) -> bool:
    """Tell whether a directory lies on a file system that is in memory only."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == wanted:
            return source.split()[0] in _MEMORY
    return False


def _private(path: Path) -> Path:
    """Make a 0700 directory of this process, or check the one that is there."""
    path.mkdir(mode=0o700, exist_ok=True)
    with files.directory(path) as at:
        status = os.fstat(at)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise Misconfigured(f"{path} must belong to this process alone (0700)")
    return path


def _key(own: Path, name: str) -> bytes:
    with files.directory(own) as at:
        found = files.read(at, name)
        if found is not None and len(found.content) == 32:
            return found.content
        key = secrets.token_bytes(32)
        files.write(at, name, key, files.own_attributes(0o600))
        return key


def _place(name: str) -> Place:
    return Place(table="agent-cache", column="entry", row=name, version=0)
