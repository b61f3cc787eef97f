"""Which secrets were handed out without Core hearing of it: one JSON line each, in the state directory.

Written before the answer leaves; if the line cannot be written, there is no answer. Lines are
numbered, so a gap shows. Two files of bounded size: when the newer one is full it becomes the older
one, whose lines are then gone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from agent.grants import Peer
from secrethub.errors import Misconfigured, Unavailable

_NEWER = "handed-out.jsonl"
_OLDER = "handed-out.1.jsonl"
LARGEST = 4 * 2**20
"""Bytes of one file."""
_TAIL = 8192
"""Bytes that hold at least one whole line: a path has at most 1,024 characters."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One secret handed out."""

    number: int
    at: float
    application: str
    uid: int
    pid: int
    path: str
    version: int
    source: str


class LocalLedger:
    """Appends lines.

    Args:
        folder: the agent's private directory.
        largest: bytes of one file.

    Raises:
        Misconfigured: the files cannot be opened.
    """

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        self._newer = folder / _NEWER
        self._older = folder / _OLDER
        self._largest = largest
        try:
            self._number = self._last_number()
            self._file = self._open()
        except OSError as exc:
            raise Misconfigured(f"{self._newer} cannot be used: {exc.strerror}") from exc

    def note(self, peer: Peer, application: str, path: str, version: int, source: str) -> None:
        """Write one line.

        Raises:
            Unavailable: it cannot be written.
        """
        line = Line(
            number=self._number + 1,
            at=time.time(),
            application=application,
            uid=peer.uid,
            pid=peer.pid,
            path=path,
            version=version,
            source=source,
        )
        encoded = msgspec.json.encode(line) + b"\n"
        try:
            if os.fstat(self._file).st_size + len(encoded) > self._largest:
                self._turn_over()
            if os.write(self._file, encoded) != len(encoded):
                raise Unavailable("the local ledger is cut off")
        except OSError as exc:
            raise Unavailable(f"the local ledger cannot be written: {exc.strerror}") from exc
        self._number += 1

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._newer, flags, 0o600)
        if not _tail(self._newer).endswith(b"\n"):
            os.write(descriptor, b"\n")  # a crash cut a line off: it ends here
        return descriptor

    def _turn_over(self) -> None:
        self._newer.replace(self._older)
        full, self._file = self._file, self._open()
        os.close(full)

    def _last_number(self) -> int:
        for path in (self._newer, self._older):
            for line in reversed(_tail(path).splitlines()):
                try:
                    return msgspec.json.decode(line, type=Line).number
                except msgspec.MsgspecError:
                    continue  # cut off, by a crash or by where the tail begins
        return 0


def _tail(path: Path) -> bytes:
    """Return the last lines of a file; a line end when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read() or b"\n"
    except FileNotFoundError:
        return b"\n"
