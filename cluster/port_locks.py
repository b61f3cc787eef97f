"""Lock files of ports, in a folder that all instances of one user have in common.

A lock lasts while any process has its descriptor. Its file is removed by whoever finds it free, and only
while he holds it; so who has locked a file must look whether it still is the one under its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from secrethub.errors import Misconfigured


class PortLocks:
    """The locks that this process has taken."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        """Prepare; nothing is locked yet.

        Args:
            folders: where the lock files may be, the first choice first; empty for the usual places.
        """
        self._candidates = list(folders) or list(_candidates())
        self._swept = False
        self._taken: dict[Path, int] = {}

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors of the locks, for a process that shall hold them as long as it lives."""
        return tuple(self._taken.values())

    def take(self, port: int) -> bool:
        """Lock ``port``; False when somebody has it.

        Raises:
            Misconfigured: there is no place for lock files.
        """
        while True:
            folder = self._folder()
            # Somebody may remove the folder, which was empty: then it is made again.
            with contextlib.suppress(FileNotFoundError):
                if not self._swept:
                    for path in list(folder.iterdir()):
                        _remove_if_free(path)
                    self._swept = True
                # Each network namespace has ports of its own.
                path = folder / f"{_namespace()}-{port}"
                descriptor = _locked(path, os.O_CREAT)
                if descriptor is not None:
                    self._taken[path] = descriptor
                return descriptor is not None

    def release(self) -> None:
        """Give up this process's share of the locks; files that nobody else holds are removed."""
        for path, descriptor in self._taken.items():
            os.close(descriptor)
            _remove_if_free(path)
        for folder in {path.parent for path in self._taken}:
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._taken.clear()

    def _folder(self) -> Path:
        """Return the first place that is ours alone, or can be made so."""
        for folder in self._candidates:
            if _is_ours(folder):
                return folder
        places = ", ".join(str(folder) for folder in self._candidates)
        raise Misconfigured(f"no folder of ours alone (0700) for the locks of ports: tried {places}")


def _candidates() -> Iterator[Path]:
    """Yield places for the locks, the same whatever the environment says.

    Below ``/tmp`` anybody may have made the folder before us, to keep us out; there the home folder helps.
    """
    user = os.geteuid()
    runtime = Path(f"/run/user/{user}") if user else Path("/run")
    if runtime.is_dir() and runtime.stat().st_uid == user:
        yield runtime / "secrethub-ports"
    yield Path(f"/tmp/secrethub-ports-{user}")  # noqa: S108 - used only if it is ours alone
    with contextlib.suppress(KeyError):
        yield Path(pwd.getpwuid(user).pw_dir) / ".secrethub-ports"


def _is_ours(folder: Path) -> bool:
    """Make the folder if it is not there; tell whether it is ours alone."""
    while True:
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        except OSError:
            return False
        with contextlib.suppress(FileNotFoundError):
            found = folder.lstat()
            ours = found.st_uid == os.geteuid() and not found.st_mode & 0o077
            return ours and stat.S_ISDIR(found.st_mode)


def _namespace() -> int:
    place = Path("/proc/self/ns/net")
    return place.stat().st_ino if place.exists() else 0


def _locked(path: Path, flags: int = 0) -> int | None:
    """Lock the file at ``path`` and return its descriptor; None when somebody has it.

    Raises:
        FileNotFoundError: it or its folder is not there.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _remove_if_free(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = _locked(path)
        if descriptor is not None:
            path.unlink()
            os.close(descriptor)
