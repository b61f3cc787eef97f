"""The folders and files of one embedded server, and the two locks that keep it alone.

::

    DATA_DIR/                 the caller's folder
      owner.lock              held by the process that runs the server
      server.lock             inherited by PostgreSQL's processes: free when the last one is gone
      moved                   only if the server's user cannot traverse to DATA_DIR: where HOME is
    HOME/                     DATA_DIR itself, or a folder below /var/lib/secrethub/postgres
      data/                   PostgreSQL's, 0700
      socket/                 0700
      programs/               only if the server's user cannot reach the installed ones: a copy
      password                0600
      log                     0600

A data directory appears under its name only when ``initdb`` has finished, so that a process killed
in between leaves nothing half made.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.children.child import Account
from cluster.folders import write_private
from cluster.postgres.account import choose_account, reaches
from secrethub.errors import Misconfigured

FALLBACK = Path("/var/lib/secrethub")
_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 107
"""``sun_path`` has 108 bytes, the last of them zero."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """Where one server lives.

    Attributes:
        folder: HOME.
        account: the server's user, or None for the present one.
    """

    folder: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.folder / "data"

    @property
    def programs(self) -> Path:
        """Where a copy of PostgreSQL's programs is, if one is needed."""
        return self.folder / "programs"

    @property
    def password(self) -> Path:
        """The superuser's password."""
        return self.folder / "password"

    @property
    def log(self) -> Path:
        """The server's log of this start; the one before it is ``log.old``."""
        return self.folder / "log"

    @property
    def major(self) -> int | None:
        """The version that made the data, or None when there is none yet."""
        version = self.data / "PG_VERSION"
        return int(version.read_text("ascii")) if version.exists() else None


def prepare(root: Path, fallback: Path = FALLBACK) -> Home:
    """Make or find HOME for the caller's folder.

    Args:
        root: the caller's folder.
        fallback: below it is the data whose server's user could not come to ``root``.

    Raises:
        Misconfigured: no folder can be used.
    """
    account = choose_account(_home_of(root) / "data")
    # Another user must pass through; what lies here is private by its own mode.
    mode = 0o711 if account else 0o700
    if not root.exists():
        root.mkdir(mode=mode, parents=True)
        root.chmod(mode)
    marker = root / "moved"
    if not marker.exists() and not reaches(account, root):
        write_private(marker, f"{fallback / 'postgres' / secrets.token_hex(8)}\n")
    folder = _home_of(root)
    try:
        _make_traversable(folder, root, mode)
    except OSError as exc:
        raise Misconfigured(f"no place for PostgreSQL's data: {exc}") from exc
    if not reaches(account, folder):
        user = account.name if account else "the present user"
        raise Misconfigured(f"user {user} cannot traverse to {folder}")
    return Home(folder=folder, account=account)


def remove(root: Path) -> None:
    """Remove everything of a stopped server, wherever it is."""
    home = _home_of(root)
    for folder in {home, root}:
        if (folder / "socket").is_symlink():
            shutil.rmtree((folder / "socket").readlink(), ignore_errors=True)
        if folder.exists():
            shutil.rmtree(folder)
    if home != root:
        _remove_if_empty(home.parent)
        _remove_if_empty(home.parent.parent)


def make_socket_folder(home: Home) -> Path:
    """Return a private folder whose path is short enough for a socket's address.

    A path that is too long is replaced by a short one in the temporary folder, or in ``/tmp`` if that is
    too long as well, or out of the server's reach; the link ``socket`` remembers it, so that the next
    start removes what a killed process left.
    """
    folder = home.folder / "socket"
    if folder.is_symlink():
        shutil.rmtree(folder.readlink(), ignore_errors=True)
        folder.unlink()
    if len(os.fsencode(folder / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
        short = _short_folder(home.account)
        folder.symlink_to(short)
        folder = short
    else:
        folder.mkdir(mode=0o700, exist_ok=True)
    give(folder, home.account)
    return folder


def _short_folder(account: Account | None) -> Path:
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a private folder in it
        short = Path(tempfile.mkdtemp(prefix="secrethub-pg-", dir=parent))
        if len(os.fsencode(short / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH and reaches(account, short.parent):
            return short
        short.rmdir()
    raise Misconfigured("no place for PostgreSQL's socket: neither TMPDIR nor /tmp will do")


def give(path: Path, account: Account | None) -> None:
    """Make ``path`` the server's own."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _home_of(root: Path) -> Path:
    marker = root / "moved"
    return Path(marker.read_text("utf-8").strip()) if marker.exists() else root


def _make_traversable(folder: Path, root: Path, mode: int) -> None:
    if folder == root:
        return
    for step in (folder.parent.parent, folder.parent, folder):
        step.mkdir(parents=True, exist_ok=True)
        found = step.stat()
        # Neither our umask nor a node's, whose own folder lies below, may keep the server's user out.
        if found.st_uid == os.geteuid() and found.st_mode & mode != mode:
            step.chmod(found.st_mode & 0o7777 | mode)


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that :func:`_make_traversable` made, unless others use it."""
    with contextlib.suppress(OSError):
        if folder.stat().st_uid == os.geteuid():
            folder.rmdir()
