"""The token that ``login`` keeps: one private file, replaced as a whole.

``~/.secrethub/token`` unless ``SECRETHUB_TOKEN_FILE`` names another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click

from cluster.cli.drafts import Draft

_LARGEST = 8192


def location(environ: Mapping[str, str]) -> Path:
    """Return where the token is kept."""
    named = environ.get("SECRETHUB_TOKEN_FILE")
    return Path(named) if named else Path(environ.get("HOME") or Path.home()) / ".secrethub" / "token"


def load(path: Path) -> str | None:
    """Return the stored token, or None when there is none.

    Raises:
        click.ClickException: the file can be read by others, belongs to someone else, or holds no token.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise click.ClickException(f"token file {path}: {exc.strerror}") from exc
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_mode & 0o077:
            raise click.ClickException(f"token file {path} can be read by others; run: chmod 600 {path}")
        if status.st_uid not in {os.geteuid(), 0}:
            raise click.ClickException(f"token file {path} belongs to another user; log in again")
        token = file.read(_LARGEST + 1)
    try:
        return token.decode("ascii").strip() or None
    except UnicodeDecodeError as exc:
        raise click.ClickException(f"token file {path} holds no token; log in again") from exc


def store(path: Path, token: str) -> None:
    """Keep ``token`` in ``path``, readable by its owner alone.

    Raises:
        click.ClickException: the file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Draft(path) as draft:
            draft.keep(token.encode() + b"\n")
    except OSError as exc:
        raise click.ClickException(f"token file {path}: {exc.strerror}; use --no-store to print it") from exc
