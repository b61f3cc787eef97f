"""Folders and small files that belong to a node alone."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from pathlib import Path

from secrethub.errors import Misconfigured


def private_folder(path: Path) -> Path:
    """Make ``path`` a folder that only its owner, the present user, can enter.

    Raises:
        Misconfigured: it cannot be made, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise Misconfigured(f"{path} must be a folder that belongs to the user who runs SecretHub")
        path.chmod(0o700)
    except OSError as exc:
        raise Misconfigured(f"{path}: {exc.strerror or exc}") from exc
    return path


def fresh_folder(path: Path) -> Path:
    """Make ``path`` a private, empty folder, whatever an earlier run left there."""
    shutil.rmtree(path, ignore_errors=True)
    return private_folder(path)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at once or not at all."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def secret_file(path: Path) -> Path:
    """Make sure that ``path`` holds a random secret: 64 hexadecimal digits, readable by the owner alone.

    Args:
        path: the file; one that exists is kept.
    """
    if not path.exists():
        write_private(path, secrets.token_hex(32) + "\n")
    return path


def check_private(path: Path, setting: str) -> Path:
    """Return ``path`` if it is a readable file that others cannot access.

    Raises:
        Misconfigured: it is not.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
    except OSError as exc:
        raise Misconfigured(f"{setting}: {path}: {exc.strerror or exc}") from exc
    if mode & 0o077:
        raise Misconfigured(f"{setting}: {path} must not be accessible to others (0600)")
    return path
