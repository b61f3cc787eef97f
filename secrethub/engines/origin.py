"""Which login a token comes from.

A token's metadata alone proves nothing: whoever may make tokens chooses it. Its path is Core's, and that of
a login is given to what the auth method there made, with metadata that it wrote itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from secrethub.errors import NotFound
from secrethub.storage.authority import Row

if TYPE_CHECKING:
    from secrethub.engines.runtime import Core


async def approle_of(core: Core, token: Row) -> tuple[str, str] | None:
    """Return key and UUID of the AppRole role by which a token was got; None for other tokens.

    Args:
        core: this process.
        token: its row, or what stands for the row of a batch token.

    Raises:
        IntegrityFailure: it cannot be told what is mounted there.
    """
    path, metadata = token.body["path"], token.body["meta"]
    if not path.endswith("/login") or token.body["role"]:
        return None
    try:
        mount = (await core.mounts.route("write", path)).mount
    except NotFound:
        return None
    if mount.type != "approle" or path != f"{mount.path}login":
        return None
    role, incarnation = metadata.get("role"), metadata.get("role_uuid")
    return (role, incarnation) if role and incarnation else None
