"""Locks on files, held by descriptors: they are free when the last process that has one is gone."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from secrethub.errors import Conflict


class Lock:
    """An exclusive lock on a file, for as long as the descriptor is open anywhere."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __repr__(self) -> str:
        return f"Lock({self._path})"

    def take(self, *, patience: float, otherwise: str) -> None:
        """Take the lock.

        Args:
            patience: seconds to wait for it.
            otherwise: what the error says when it stays taken.

        Raises:
            Conflict: somebody else holds it.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Conflict(otherwise) from None
                time.sleep(0.02)

    def close(self) -> None:
        """Let go of this process's share of the lock."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
