"""Quotas and the mounts that they are about: they go with them, and follow them."""

from __future__ import annotations

from secrethub.storage.authority import QUOTAS, Authority, Change


async def quotas_of(authority: Authority, mount: str) -> list[str]:
    """Return the keys of the quotas that are about a mount, or what is below it.

    Asked for before the change that they go or follow with: whoever writes another meanwhile overtakes it.

    Raises:
        Sealed, Unavailable: the rows cannot be read.
    """
    rows, _ = await authority.everything(QUOTAS)
    return [row.key for row in rows if row.body.get("mount") == mount]


async def forget_quotas(change: Change, keys: list[str]) -> None:
    """Remove the quotas of a mount that is removed."""
    for key in keys:
        await change.delete(QUOTAS, key)


async def move_quotas(change: Change, keys: list[str], new: str) -> None:
    """Let the quotas of a mount be about the path that it moves to."""
    for key in keys:
        row = await change.get(QUOTAS, key)
        if row is not None:
            path = new + row.body["path"].removeprefix(row.body["mount"])
            await change.put(QUOTAS, key, {**row.body, "path": path, "mount": new})
