"""Which user the server runs as, and what that user can reach.

PostgreSQL refuses to run as root. Whether another user can traverse to a folder is tried, not
computed: mode bits do not tell the whole truth (ACLs, security modules, mount options).
"""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from cluster.children.child import Account
from secrethub.errors import Misconfigured

_CANDIDATES = ("postgres", "nobody")


def choose_account(data: Path) -> Account | None:
    """Choose the server's user; None means the present one, which is not root.

    Args:
        data: the data directory; where it exists, its owner is the only user that can open it.

    Raises:
        Misconfigured: the data belongs to somebody else, or root finds no user to become.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in {None, os.geteuid()}:
            raise Misconfigured(f"{data} belongs to user {owner}: run as that user or as root")
        return None
    if owner:
        return Account(name=_name(owner), uid=owner, gid=data.stat().st_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise Misconfigured("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def reaches(account: Account | None, folder: Path) -> bool:
    """Tell whether the server's user can traverse to ``folder``."""
    if account is None:
        return os.access(folder, os.X_OK)
    try:
        result = subprocess.run(  # noqa: S603 - the folder is an argument, not part of the command
            ["/bin/sh", "-c", 'cd -- "$0"', str(folder)],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as exc:
        raise Misconfigured(f"cannot become user {account.name} to run PostgreSQL: {exc}") from exc
    return result.returncode == 0


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
