"""Mounts are made, tuned and removed."""

from __future__ import annotations

from typing import Any

from secrethub.clock import micros
from secrethub.engines.engine import EMPTY, Answer, Context
from secrethub.engines.flat import DYNAMIC
from secrethub.engines.leasing import leased_kinds
from secrethub.engines.mounts import AUTH, BUILT_IN, TOKEN_MOUNT
from secrethub.engines.quota_mounts import forget_quotas, quotas_of
from secrethub.engines.system.mount_settings import (
    EnableRequest,
    MountConfig,
    new_auth_mount,
    new_mount,
    tuned,
)
from secrethub.engines.unmounting import empty
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.ids import new_accessor, new_uuid
from secrethub.storage.authority import MOUNTS
from secrethub.storage.lease_ends import order_for_mount
from secrethub.wire.canonical_path import check_path

RESERVED = ("auth/", "sys/", "cubbyhole/", "identity/", "audit/")
_STORE = "secret/"
_FLAT = "secrets/"
KEPT = frozenset({*(mount.path for mount in BUILT_IN), "pki/", "secrets/"})
"""Agents and listeners live by these; ``secrets/`` is a view of ``secret/`` and holds nothing itself."""


def mount_path(context: Context) -> str:
    """Return the mount's path that the request names."""
    return check_path(context.params["path"]) + "/"


def auth_path(context: Context) -> str:
    """Return the auth method's path that the request names."""
    return AUTH + check_path(context.params["path"]) + "/"


async def enable(context: Context, body: EnableRequest) -> Answer:
    """Mount a key/value store, or an engine that leases things out, at a free path."""
    path = mount_path(context)
    made = new_mount(body, leased_kinds(context.core))
    if path == _STORE and made["options"]["version"] != "2":
        raise InvalidRequest("secrets/ is a view of secret/, which therefore has version 2")
    await check_free(context, path, leased=made["type"] in leased_kinds(context.core))
    if path.startswith(RESERVED):
        raise InvalidRequest("this path is reserved")
    return await _enable(context, path, made)


async def enable_auth(context: Context, body: EnableRequest) -> Answer:
    """Enable an auth method at a free path."""
    path = auth_path(context)
    made = new_auth_mount(body)
    await check_free(context, path)
    return await _enable(context, path, made)


async def check_free(context: Context, path: str, *, leased: bool = False) -> None:
    """Check that a mount can be made at ``path``.

    Args:
        context: of the request.
        path: where.
        leased: its engine leases things out, so it may be in the part of the flat view kept free for that.

    Raises:
        InvalidRequest: no policy could speak of it, or something is there.
    """
    if "*" in path or "/+/" in f"/{path}":
        raise InvalidRequest("a mount's path has no wildcards of policies")
    if not path.isprintable():
        raise InvalidRequest("a mount's path has characters that cannot be seen")
    if path.endswith("/tune/"):
        raise InvalidRequest("a mount's path does not end with tune, by which its settings are asked for")
    core = context.core
    beside = _FLAT if leased and path.startswith(DYNAMIC) and path != DYNAMIC else None
    for mount in await core.mounts.load():
        if mount.path != beside and (path.startswith(mount.path) or mount.path.startswith(path)):
            raise InvalidRequest(f"path is already in use at {mount.path}")
    for mount in await core.mounts.leaving():
        if path.startswith(mount.path) or mount.path.startswith(path):
            raise InvalidRequest(f"the mount at {mount.path} is still being removed")


async def _enable(context: Context, path: str, made: dict[str, Any]) -> Answer:
    accessor = f"{made['type']}_{new_accessor()[:8]}"
    row = {**made, "uuid": new_uuid(), "accessor": accessor, "enabled_at": micros(context.now)}
    async with context.core.authority.change(context.fence) as change:
        await change.put(MOUNTS, path, row, expected_revision=0)
    return EMPTY


async def tune(context: Context, body: MountConfig) -> Answer:
    """Change a mount's description or the limits of its leases."""
    path = mount_path(context)
    if path.startswith(RESERVED) or path in {mount.path for mount in BUILT_IN}:
        raise InvalidRequest(f"cannot tune {path}")
    return await _tune(context, path, body, "no secrets engine is mounted at")


async def tune_auth(context: Context, body: MountConfig) -> Answer:
    """Change an auth method's description or the limits of its tokens' lives, old ones' not."""
    return await _tune(context, auth_path(context), body, "no auth method is enabled at")


async def _tune(context: Context, path: str, body: MountConfig, nothing: str) -> Answer:
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(MOUNTS, path)
        if row is None or row.body.get("leaving"):
            raise InvalidRequest(f"{nothing} {path}")
        await change.put(MOUNTS, path, tuned(row.body, body, leased_kinds(context.core)))
    return EMPTY


async def disable(context: Context, _body: None) -> Answer:
    """Remove a mount and everything in it; that there is none is no error, as in Vault."""
    path = mount_path(context)
    if path.startswith(RESERVED) or path in KEPT:
        raise InvalidRequest(f"cannot unmount {path}")
    return await _disable(context, path)


async def disable_auth(context: Context, _body: None) -> Answer:
    """Remove an auth method with its tokens: when this returns no node takes one of them any more."""
    path = auth_path(context)
    if path == TOKEN_MOUNT:
        raise InvalidRequest("token credential backend cannot be disabled")
    return await _disable(context, path)


async def _disable(context: Context, path: str) -> Answer:
    core = context.core
    row = await core.authority.get(MOUNTS, path)
    if row is None:
        return EMPTY
    quotas = await quotas_of(core.authority, path)
    async with core.authority.change(context.fence) as change:
        row = await change.get(MOUNTS, path)
        if row is not None and not row.body.get("leaving"):
            await change.put(MOUNTS, path, {**row.body, "leaving": True})
            await forget_quotas(change, quotas)
            await order_for_mount(change.connection, row.body["uuid"])
    if not await empty(core, path):
        raise Unavailable(
            f"nobody is led to {path} any more, but leases are left that could not be ended yet; "
            "this goes on by itself"
        )
    return EMPTY
