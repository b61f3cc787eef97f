"""Segments as files in a directory: private, complete or not there at all, never through a link."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import PurePosixPath
from typing import IO

from secrethub.engines.archive.store import StoreFailed
from secrethub.engines.sinks.file import open_below, place_of
from secrethub.node import NodeSettings

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 20


class FolderStore:
    """A directory below one of the server's settings. It must be there."""

    def __init__(self, settings: NodeSettings, path: str) -> None:
        """Prepare; nothing is opened yet.

        Raises:
            InvalidRequest: the path is not below a directory of the settings.
        """
        self._settings = settings
        self._folder, self._place = place_of(settings, path, "path")

    @property
    def _path(self) -> PurePosixPath:
        return self._folder / self._place

    def put(self, name: str, source: IO[bytes]) -> None:
        """Write a file beside the place, then give it its name."""
        try:
            folder = open_below(self._settings, self._folder, self._place.parts)
            try:
                self._write(folder, name, source)
            finally:
                os.close(folder)
        except OSError as exc:
            raise StoreFailed(f"{self._path / name}: {exc.strerror or exc}") from exc

    def _write(self, folder: int, name: str, source: IO[bytes]) -> None:
        temporary = f".{name}.{secrets.token_hex(8)}"
        file = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        try:
            with os.fdopen(file, "wb") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def get(self, name: str, target: IO[bytes], limit: int) -> bool:
        """Read a file."""
        try:
            folder = open_below(self._settings, self._folder, self._place.parts)
            try:
                file = os.open(name, _READ, dir_fd=folder)
            finally:
                os.close(folder)
            with os.fdopen(file, "rb") as source:
                found = os.fstat(source.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
                    raise StoreFailed(f"{self._path / name} is not what was put there")
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise StoreFailed(f"{self._path / name}: {exc.strerror or exc}") from exc
        return True
