"""Mounts are made, tuned and removed."""

from __future__ import annotations

from secrethub.engines.engine import EMPTY, Answer, Context
from secrethub.engines.mounts import BUILT_IN
from secrethub.engines.system.mount_settings import EnableRequest, MountConfig, new_mount, tuned
from secrethub.engines.unmounting import empty
from secrethub.errors import InvalidRequest
from secrethub.ids import new_accessor, new_uuid
from secrethub.storage.authority import MOUNTS
from secrethub.wire.canonical_path import check_path

_RESERVED = ("auth/", "sys/", "cubbyhole/", "identity/", "audit/")
_STORE = "secret/"
_KEPT = frozenset({*(mount.path for mount in BUILT_IN), "pki/", "secrets/"})
"""Agents and listeners live by these; ``secrets/`` is a view of ``secret/`` and holds nothing itself."""


def mount_path(context: Context) -> str:
    """Return the mount's path that the request names."""
    return check_path(context.params["path"]) + "/"


async def enable(context: Context, body: EnableRequest) -> Answer:
    """Mount a key/value store at a free path."""
    path = mount_path(context)
    if "*" in path or "/+/" in f"/{path}":
        raise InvalidRequest("a mount's path has no wildcards of policies")
    made = new_mount(body)
    if path == _STORE and made["options"]["version"] != "2":
        raise InvalidRequest("secrets/ is a view of secret/, which therefore has version 2")
    core = context.core
    for mount in await core.mounts.load():
        if path.startswith(mount.path) or mount.path.startswith(path):
            raise InvalidRequest(f"path is already in use at {mount.path}")
    for mount in await core.mounts.leaving():
        if path.startswith(mount.path) or mount.path.startswith(path):
            raise InvalidRequest(f"the mount at {mount.path} is still being removed")
    if path.startswith(_RESERVED):
        raise InvalidRequest("this path is reserved")
    async with core.authority.change(context.fence) as change:
        await change.put(
            MOUNTS,
            path,
            {**made, "uuid": new_uuid(), "accessor": f"kv_{new_accessor()[:8]}"},
            expected_revision=0,
        )
    return Answer(detail={"written": change.written})


async def tune(context: Context, body: MountConfig) -> Answer:
    """Change a mount's description or the limits of its leases."""
    path = mount_path(context)
    if path.startswith(_RESERVED) or path in {mount.path for mount in BUILT_IN}:
        raise InvalidRequest(f"cannot tune {path}")
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(MOUNTS, path)
        if row is None or row.body.get("leaving"):
            raise InvalidRequest(f"no secrets engine is mounted at {path}")
        await change.put(MOUNTS, path, tuned(row.body, body))
    return Answer(detail={"written": change.written})


async def disable(context: Context, _body: None) -> Answer:
    """Remove a mount and everything in it; that there is none is no error, as in Vault."""
    path, core = mount_path(context), context.core
    if path.startswith(_RESERVED) or path in _KEPT:
        raise InvalidRequest(f"cannot unmount {path}")
    row = await core.authority.get(MOUNTS, path)
    if row is None:
        return EMPTY
    async with core.authority.change(context.fence) as change:
        row = await change.get(MOUNTS, path)
        if row is not None and not row.body.get("leaving"):
            await change.put(MOUNTS, path, {**row.body, "leaving": True})
    await empty(core, path)
    return Answer(detail={"written": change.written})
