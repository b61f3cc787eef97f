"""A file of the ledger's entries, one JSON object a line: private, appended to, and safe to rotate.

The file lies below a directory of the server's settings. No link is followed on the way and none is the file
itself, so that whoever can write there cannot lead us elsewhere. A file that was renamed or removed is
opened anew; a line that a crash cut in two is ended before the next one.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from secrethub.engines.sinks.target import TargetFailed
from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def audit_folders(settings: NodeSettings) -> tuple[PurePosixPath, ...]:
    """Return the directories below which the ledger may be written to."""
    named = settings.audit_dirs or (str(Path(settings.state_dir) / "audit"),)
    return tuple(PurePosixPath(folder) for folder in named)


def place_of(settings: NodeSettings, text: str, option: str) -> tuple[PurePosixPath, PurePosixPath]:
    """Return the directory of the settings and the place below it.

    Args:
        settings: of this node.
        text: the path.
        option: that gives it, for messages.

    Raises:
        InvalidRequest: the path is not below one of them.
    """
    path = PurePosixPath(text)
    if not text.isprintable() or ".." in path.parts or not path.is_absolute():
        raise InvalidRequest(f"{option} is an absolute path without ..")
    for folder in audit_folders(settings):
        if path.is_relative_to(folder) and path != folder:
            return folder, path.relative_to(folder)
    allowed = ", ".join(map(str, audit_folders(settings)))
    raise InvalidRequest(f"{option} must be below {allowed} (audit.dirs in the server's settings)")


def open_below(settings: NodeSettings, folder: PurePosixPath, names: Sequence[str]) -> int:
    """Return a descriptor of a directory below one of the settings; no link is followed on the way down.

    Raises:
        OSError: it is not there.
    """
    if not settings.audit_dirs:
        Path(folder).mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, _FOLDER)
    for name in names:
        try:
            below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


class FileTarget:
    """The file at a path."""

    def __init__(self, settings: NodeSettings, path: str) -> None:
        """Prepare; nothing is opened yet.

        Raises:
            InvalidRequest: the path is not below a directory of the settings.
        """
        self._folder, self._place = place_of(settings, path, "file_path")
        self._settings = settings
        self._file: int | None = None

    async def check(self) -> None:
        """Open the file, or make it."""
        await asyncio.to_thread(self._guarded, ())

    async def send(self, lines: Sequence[bytes]) -> None:
        """Append the lines; they are on the disk afterwards."""
        await asyncio.to_thread(self._guarded, lines)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _guarded(self, lines: Sequence[bytes]) -> None:
        try:
            self._append(lines)
        except OSError as exc:
            raise TargetFailed(f"{self._folder / self._place}: {exc.strerror or exc}") from exc

    def _append(self, lines: Sequence[bytes]) -> None:
        folder = open_below(self._settings, self._folder, self._place.parts[:-1])
        try:
            file = self._open(folder)
        finally:
            os.close(folder)
        if not lines:
            return
        size = os.fstat(file).st_size
        data = b"".join(line + b"\n" for line in lines)
        if size and os.pread(file, 1, size - 1) != b"\n":
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(file, memoryview(data)[written:])
            os.fsync(file)
        except OSError:
            # All or nothing, as far as that goes: everything comes again.
            if os.fstat(file).st_size == size + written:
                os.ftruncate(file, size)
            raise

    def _open(self, folder: int) -> int:
        """Return the file, opened again if it is another one by now."""
        name = self._place.name
        if self._file is not None:
            mine = os.fstat(self._file)
            try:
                there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                there = None
            if there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                _check(mine)
                return self._file
            os.close(self._file)
            self._file = None
        file = os.open(name, _FILE, 0o600, dir_fd=folder)
        try:
            _check(os.fstat(file))
            os.fsync(folder)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return file


def _check(found: os.stat_result) -> None:
    """Check that only we can read and write a file, and that it has no second name."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        raise OSError(0, "it must be a regular file of the server's own user, with one name")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise OSError(0, "others must not have access to it (0600)")
