"""The one-time token that init from beyond loopback needs."""

from __future__ import annotations

import hmac
from pathlib import Path

from secrethub.engines.engine import Context
from secrethub.errors import PermissionDenied


def check_init_token(context: Context, given: str) -> None:
    """Use the one-time token up.

    Raises:
        PermissionDenied: there is none, or this is not it.
    """
    name = context.core.settings.init_token_file
    if name is None:
        raise PermissionDenied("init from beyond loopback needs init_token_file in the configuration")
    path = Path(name)
    try:
        if path.stat().st_mode & 0o077:
            raise PermissionDenied("the init token file is accessible to others")
        wanted = path.read_bytes().strip()
    except OSError as exc:
        raise PermissionDenied("the init token file cannot be read") from exc
    if not wanted or not hmac.compare_digest(wanted, given.strip().encode()):
        raise PermissionDenied("wrong init token")
    try:
        # One use: removed before anything is made with it, and only one request removes it.
        path.unlink()
    except OSError as exc:
        raise PermissionDenied("the init token was used already, or cannot be removed") from exc
