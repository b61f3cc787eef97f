"""The agent's private directory: its identity, what must survive a restart, and its lock.

The directory is 0700 and the agent's own, its files are 0600 and replaced whole. One agent at a
time uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent import files
from secrethub.errors import Conflict, Misconfigured, Unavailable

_LOCK = "lock"


class StateDirectory:
    """An open state directory. Made by :func:`open_state`.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._at = descriptor

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None when there is none."""
        found = files.read(self._at, name)
        return None if found is None else found.content

    def write(self, name: str, content: bytes) -> None:
        """Replace a file durably: after a crash it has the old content or the new, never a mixture.

        Raises:
            Unavailable: the disk does not take it.
        """
        try:
            files.write(self._at, name, content, files.own_attributes(0o600))
        except OSError as exc:
            raise Unavailable(f"{self.path / name} cannot be written: {exc.strerror}") from exc

    def remove(self, name: str) -> None:
        """Remove a file durably; no error when it is not there."""
        files.remove(self._at, name)


@contextlib.contextmanager
def open_state(path: Path) -> Iterator[StateDirectory]:
    """Open the state directory, making it if need be, and keep others out while it is open.

    Raises:
        Misconfigured: others own the directory or may enter it, or it cannot be made.
        Conflict: another agent uses it.
    """
    parent, _name = files.split(path)
    try:
        parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise Misconfigured(f"state.dir {path}: {exc.strerror}") from exc
    with files.directory(path) as at:
        status = os.fstat(at)
        if status.st_uid != os.geteuid():
            raise Misconfigured(f"state.dir {path} belongs to uid {status.st_uid}, not to this process")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise Misconfigured(f"state.dir {path} must not be accessible to others (0700)")
        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise Conflict(f"another agent uses {path}") from exc
            files.sweep(at)
            yield StateDirectory(path, at)
        finally:
            os.close(lock)
