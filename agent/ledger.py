"""Which secrets were handed out without Core hearing of it: JSON lines, in the state directory.

Written before the answer leaves; if the line cannot be written, there is no answer. What the same
user of the same application gets again within a minute is counted, and the next line about it says
how often. Each application has its own two files of bounded size, so none can push out another's
lines. When the newer file is full it becomes the older one, whose lines are then gone: that is
logged, and since lines are numbered it also shows in what is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent import files
from agent.grants import Peer
from secrethub.errors import Misconfigured, Unavailable

FOLDER = "handed-out"
LARGEST = 2 * 2**20
"""Bytes of one file."""
MERGED = 60.0
"""Seconds within which the same is not written again."""
_MOST_MERGED = 4_096
"""Different lines whose repetitions are counted at a time."""
_TAIL = 8192
"""Bytes that hold at least one whole line: a path has at most 1,024 characters."""

_log = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One secret handed out. ``again``: how often more since the last line that says the same."""

    number: int
    at: float
    application: str
    uid: int
    pid: int
    path: str
    version: int
    source: str
    again: int = 0


class _Same(NamedTuple):
    """What makes two lines say the same."""

    application: str
    uid: int
    path: str
    version: int
    source: str


class _Merged:
    """Repetitions of a line since it was written."""

    __slots__ = ("count", "pid", "until")

    def __init__(self, pid: int, until: float) -> None:
        self.pid = pid
        self.until = until
        self.count = 0


class LocalLedger:
    """Appends lines.

    Args:
        state_dir: the agent's private directory.
        largest: bytes of one file.
        merged: seconds for which the same again is only counted.

    Raises:
        Misconfigured: the folder or its files cannot be used.
    """

    def __init__(self, state_dir: Path, largest: int = LARGEST, merged: float = MERGED) -> None:
        self._folder = state_dir / FOLDER
        self._largest = largest
        self._merged_for = merged
        self._trails: dict[str, _Trail] = {}
        self._merged: OrderedDict[_Same, _Merged] = OrderedDict()
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise Misconfigured(f"{self._folder} cannot be made: {exc.strerror}") from exc
        with files.directory(self._folder):
            pass  # it is one, and no symlink

    def note(self, peer: Peer, application: str, path: str, version: int, source: str) -> None:
        """Write one line, or count it with the one that says the same.

        Raises:
            Unavailable: it cannot be written.
        """
        now = time.monotonic()
        while self._merged:
            oldest = next(iter(self._merged.values()))
            if oldest.until > now and len(self._merged) < _MOST_MERGED:
                break
            self._settle(*self._merged.popitem(last=False))
        same = _Same(application, peer.uid, path, version, source)
        merged = self._merged.get(same)
        if merged is not None:
            merged.count += 1
            merged.pid = peer.pid
            return
        self._write(same, peer.pid, 0)
        self._merged[same] = _Merged(peer.pid, now + self._merged_for)

    def close(self) -> None:
        """Write what is only counted so far, and close the files."""
        while self._merged:
            with contextlib.suppress(Unavailable):  # the first of them is written, and the agent ends
                self._settle(*self._merged.popitem(last=False))
        for trail in self._trails.values():
            trail.close()

    def _settle(self, same: _Same, merged: _Merged) -> None:
        if merged.count:
            self._write(same, merged.pid, merged.count - 1)

    def _write(self, same: _Same, pid: int, again: int) -> None:
        try:
            trail = self._trails.get(same.application)
            if trail is None:
                trail = self._trails[same.application] = _Trail(self._folder, same.application, self._largest)
            trail.append(same, pid, again)
        except OSError as exc:
            raise Unavailable(f"the local ledger cannot be written: {exc.strerror}") from exc


class _Trail:
    """The lines of one application. Everything here raises OSError."""

    def __init__(self, folder: Path, application: str, largest: int) -> None:
        name = hashlib.sha256(application.encode("utf-8")).hexdigest()[:16]
        self._application = application
        self._newer = folder / f"{name}.jsonl"
        self._older = folder / f"{name}.1.jsonl"
        self._largest = largest
        self._number = self._last_number()
        self._file = self._open()

    def append(self, same: _Same, pid: int, again: int) -> None:
        line = Line(number=self._number + 1, at=time.time(), pid=pid, again=again, **same._asdict())
        encoded = msgspec.json.encode(line) + b"\n"
        if os.fstat(self._file).st_size + len(encoded) > self._largest:
            self._turn_over()
        if os.write(self._file, encoded) != len(encoded):
            raise OSError(0, "a line was cut off")
        self._number += 1

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._newer, flags, 0o600)
        if not _tail(self._newer).endswith(b"\n"):
            os.write(descriptor, b"\n")  # a crash cut a line off: it ends here
        return descriptor

    def _turn_over(self) -> None:
        gone = _number_in(_head(self._older))
        kept = _number_in(_head(self._newer))
        self._newer.replace(self._older)
        full, self._file = self._file, self._open()
        os.close(full)
        if gone is not None and kept is not None:
            extra = {"application": self._application, "lines": kept - gone, "up_to": kept - 1}
            _log.warning("the oldest lines of the local ledger are gone", extra=extra)

    def _last_number(self) -> int:
        for path in (self._newer, self._older):
            number = _number_in(reversed(_tail(path).splitlines()))
            if number is not None:
                return number
        return 0


def _number_in(lines: Iterable[bytes]) -> int | None:
    """Return the number of the first whole line."""
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):  # cut off, by a crash or by where the piece ends
            return msgspec.json.decode(line, type=Line).number
    return None


def _head(path: Path) -> list[bytes]:
    """Return the first lines of a file; none when there is no file."""
    try:
        with path.open("rb") as file:
            return file.read(_TAIL).splitlines()
    except FileNotFoundError:
        return []


def _tail(path: Path) -> bytes:
    """Return the last lines of a file; a line end when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read() or b"\n"
    except FileNotFoundError:
        return b"\n"
