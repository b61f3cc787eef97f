"""The demo's one folder: locked while anything of the demo lives, and removed by the next one if need be."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.demo.core import remove_outside
from cluster.locks import Lock
from secrethub.errors import Conflict

_PREFIX = "shdemo-"
"""Short, for the path becomes part of sockets' addresses."""
_LOCK = "lock"


class Folder:
    """A new folder below the temporary one.

    Attributes:
        path: where it is.
    """

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            # As root, PostgreSQL runs as another user, who must be able to pass through here.
            self.path.chmod(0o711)
            with contextlib.suppress(FileNotFoundError):
                self._lock = Lock(self.path / _LOCK)
                # Another demo may have taken this one for a dead one's in between.
                self._lock.take(patience=60, otherwise=f"{self.path} is in use")
                self.path.lstat()
                return

    @property
    def lock(self) -> int:
        """Descriptor of the lock, for processes that may outlive this one."""
        return self._lock.descriptor

    def remove(self) -> list[Path]:
        """Remove it and return what could not be removed."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        return [self.path] if self.path.exists() else []


def remove_dead() -> list[Path]:
    """Remove the folders of this user's demos of which nothing lives any more, and return their paths."""
    return [folder for folder in _own_folders() if _remove_if_dead(folder)]


def _own_folders() -> Iterator[Path]:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if folder.lstat().st_uid == os.geteuid() and (folder / _LOCK).is_file():
                yield folder


def _remove_if_dead(folder: Path) -> bool:
    try:
        lock = Lock(folder / _LOCK)
    except FileNotFoundError:
        return False
    try:
        lock.take(patience=0, otherwise=f"{folder} is in use")
        remove_outside(folder / "core")
        shutil.rmtree(folder, ignore_errors=True)
    except Conflict:
        return False
    finally:
        lock.close()
    return True
