"""Files in directories that other people may own: by directory descriptor, never through a symlink.

A path is walked once, with ``openat2(RESOLVE_NO_SYMLINKS)`` or, on kernels and sandboxes without it,
component by component with ``O_NOFOLLOW``. Everything after that is relative to the descriptor, so
nobody can swap a directory for a symlink between a check and its use.

A file appears under its name whole or not at all: a temporary file in the same directory, created
0600, gets owner and mode while it is still empty, then the content, ``fsync``, ``rename`` and the
``fsync`` of the directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from secrethub.errors import Misconfigured, NotFound, TooLarge

_SYS_OPENAT2 = 437
"""The same number on every architecture (Linux 5.6 and later)."""
_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TEMPORARY = ".secrethub-"

LARGEST = 16 * 1024 * 1024
"""Bytes read from any file unless the caller says otherwise."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes:
    """Who owns a file and who may use it."""

    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A regular file that was read."""

    content: bytes = field(repr=False)
    attributes: Attributes
    modified: float
    alone: bool
    """Whether it has no other name: whoever owns a folder may link another's file there."""


def split(path: Path) -> tuple[Path, str]:
    """Return the directory and the name of an absolute path without dot segments.

    Raises:
        Misconfigured: the path is relative, ends in no name, or has a ``.`` or ``..``.
    """
    text = str(path)
    if not path.is_absolute() or path.name in {"", ".", ".."} or ".." in path.parts:
        raise Misconfigured(f"{text!r} must be an absolute path without '..'")
    return path.parent, path.name


@contextlib.contextmanager
def directory(path: Path, *, kernel: bool = True) -> Iterator[int]:
    """Open a directory without following a symlink anywhere on the way.

    Args:
        path: absolute.
        kernel: let the kernel resolve the path in one step where it can.

    Raises:
        NotFound: no such directory.
        Misconfigured: a component is a symlink or no directory, or may not be entered.
    """
    try:
        descriptor = _openat2(path) if kernel else None
        if descriptor is None:
            descriptor = _walk(path)
    except OSError as exc:
        raise _explained(path, exc) from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(at: int, name: str, *, limit: int = LARGEST) -> Found | None:
    """Read a regular file in an open directory; None when there is none.

    Raises:
        Misconfigured: the name is a symlink, a device, a pipe or anything but a regular file.
        TooLarge: more than ``limit`` bytes.
    """
    try:
        # O_NONBLOCK: opening a pipe that somebody put there must not wait for a writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise Misconfigured(f"{name} is a symbolic link") from exc
        raise Misconfigured(f"{name}: {exc.strerror}") from exc
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise Misconfigured(f"{name} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
        if len(content) > limit:
            raise TooLarge(f"{name} has more than {limit} bytes")
        owned = Attributes(uid=status.st_uid, gid=status.st_gid, mode=stat.S_IMODE(status.st_mode))
        alone = _has_one_name(at, name, status)
        return Found(content=content, attributes=owned, modified=status.st_mtime, alone=alone)


def write(at: int, name: str, content: bytes, attributes: Attributes, *, durable: bool = True) -> None:
    """Put a whole file in place, in an open directory.

    Args:
        at: the directory.
        name: of the file.
        content: all of it.
        attributes: owner and mode.
        durable: also against a crash of the host, which takes its time; in any case the file is
            there whole or not at all when this process ends.

    Raises:
        OSError: what the kernel refused; nothing is under the name that was not there before.
    """
    temporary = f".{name[:180]}{_TEMPORARY}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=at)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if (attributes.uid, attributes.gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, attributes.uid, attributes.gid)
            os.fchmod(descriptor, attributes.mode)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=at)
        raise
    if durable:
        os.fsync(at)


def remove(at: int, name: str) -> None:
    """Remove a name from an open directory durably; no error when it is not there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)
        os.fsync(at)


def names(at: int) -> list[str]:
    """Return the names in an open directory."""
    return os.listdir(at)


def sweep(at: int, name: str | None = None, uid: int | None = None) -> None:
    """Remove temporary files of ``name`` (None: of any) that a killed process left behind.

    In a folder of others anything may bear such a name: what is no file of this process or of
    ``uid``, and what cannot be removed, stays.
    """
    for entry in names(at):
        owner, found, _random = entry.rpartition(_TEMPORARY)
        if found and owner.startswith(".") and (name is None or owner == f".{name[:180]}"):
            with contextlib.suppress(OSError):
                status = os.stat(entry, dir_fd=at, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid in {os.geteuid(), uid}:
                    remove(at, entry)


def own_attributes(mode: int) -> Attributes:
    """Return attributes of a file of this process."""
    return Attributes(uid=os.geteuid(), gid=os.getegid(), mode=mode)


def _has_one_name(at: int, name: str, opened: os.stat_result) -> bool:
    """Tell whether an opened file is under its name still, and under no other.

    The count alone proves nothing: a name may have been taken away since the file was opened.
    """
    try:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(status, opened) and status.st_nlink == 1


def _openat2(path: Path) -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    how = _OpenHow(_DIRECTORY, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    number: int = libc.syscall(
        _SYS_OPENAT2, _AT_FDCWD, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
    )
    if number >= 0:
        return number
    code = ctypes.get_errno()
    if code in {errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG}:
        return None  # an old kernel, or a sandbox that does not know the call
    raise OSError(code, os.strerror(code), str(path))


def _walk(path: Path) -> int:
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts[1:]:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        return os.open(".", _DIRECTORY, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _explained(path: Path, exc: OSError) -> NotFound | Misconfigured:
    if exc.errno == errno.ENOENT:
        return NotFound(f"directory {path} does not exist")
    if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
        link = next((p for p in [*reversed(path.parents), path] if p.is_symlink()), None)
        if link is not None:
            return Misconfigured(f"{link} is a symbolic link; write the real path instead of {path}")
    return Misconfigured(f"directory {path}: {exc.strerror}")
