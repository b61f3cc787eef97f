"""A second process that kills itself (SIGKILL) at a step of archiving, started by tests."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import IO, Any, NoReturn

from secrethub.engines.archive import archiver
from secrethub.engines.archive.folder import FolderStore
from secrethub.storage import archive as rows
from tests.gateway import second_process


def die() -> NoReturn:
    """End here and now."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class _Dying:
    """Gives some bytes, and then there is no more process."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._given = False

    def read(self, _size: int = -1) -> bytes:
        if self._given:
            die()
        self._given = True
        return self._file.read(100)


def arm(step: str) -> None:
    """Die at a step."""
    put, prune = FolderStore.put, rows.prune
    if step == "planned":

        async def no_write(*_args: Any) -> Any:
            die()

        archiver._write = no_write
    elif step == "uploading":
        FolderStore.put = lambda self, name, source: put(self, name, _Dying(source))  # type: ignore[method-assign,arg-type]
    elif step == "file":

        def first(self: FolderStore, name: str, source: IO[bytes]) -> None:
            put(self, name, source)
            die()

        FolderStore.put = first  # type: ignore[method-assign]
    elif step == "uploaded":
        archiver.rows.restated = lambda *_args: die()  # type: ignore[attr-defined]
    elif step == "noted":

        async def no_prune(*_args: Any) -> None:
            die()

        rows.prune = no_prune
    elif step == "pruning":

        async def half(*args: Any) -> None:
            await prune(*args)
            die()

        rows.prune = half
    elif step == "pruned":
        archiver.Outcome = lambda **_fields: die()  # type: ignore[misc,assignment]
        archiver.locks.release = lambda *_args: die()  # type: ignore[attr-defined]


def run(ready: Connection, node_file: str, socket: str, step: str) -> None:
    """Be a second process that dies at a step."""
    arm(step)
    second_process.run(ready, node_file, socket)
