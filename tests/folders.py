"""Folders that another user can traverse to: PostgreSQL's unprivileged one, when root runs the tests.

Pytest's own are no such. Their paths are short, for the sockets below them. They lie in memory where there
is plenty: each database of a test is some hundred files that are made and removed again, and on a disk
PostgreSQL takes most of its time for those.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY = "/dev/shm"
_PLENTY = 4 << 30
"""Bytes; all workers' databases and logs together take less than half."""


def parent() -> str:
    """Return where such folders are made."""
    with contextlib.suppress(OSError):
        room = os.statvfs(_MEMORY)
        if os.access(_MEMORY, os.W_OK) and room.f_bavail * room.f_frsize >= _PLENTY:
            return _MEMORY
    return "/tmp"


@contextlib.contextmanager
def traversable() -> Iterator[Path]:
    """Make one, and remove it and all that is in it."""
    made = Path(tempfile.mkdtemp(prefix="secrethub-", dir=parent()))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
