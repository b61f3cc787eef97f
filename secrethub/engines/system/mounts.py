"""What is mounted where: list, enable, and the questions that Vault's clients ask before every call."""

from __future__ import annotations

from typing import Any

from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.mounts import Mount
from secrethub.engines.system.mount_settings import EnableRequest, new_mount
from secrethub.errors import InvalidRequest, PermissionDenied
from secrethub.ids import new_accessor, new_uuid
from secrethub.storage.authority import MOUNTS
from secrethub.wire.canonical_path import check_path

_ONE_STORE = ("secret/", "secrets/")
"""Two views of the same secrets; each language of policies names one of them."""


def mount_operations() -> tuple[Operation, ...]:
    """Return the operations on mounts."""
    return (
        Operation(
            name="sys.mounts",
            method="read",
            pattern="mounts",
            handler=list_mounts,
            capability="read",
            summary="List secrets engines.",
        ),
        Operation(
            name="sys.mounts.enable",
            method="write",
            pattern="mounts/{path*}",
            handler=enable,
            capability="update",
            request=EnableRequest,
            changes=True,
            plain=frozenset({"type", "description"}),
            summary="Mount a secrets engine.",
        ),
        Operation(
            name="sys.auth",
            method="read",
            pattern="auth",
            handler=list_auth,
            capability="read",
            summary="List auth methods.",
        ),
        Operation(
            name="sys.ui.mounts",
            method="read",
            pattern="internal/ui/mounts",
            handler=ui_mounts,
            capability="read",
            summary="List mounts for clients.",
        ),
        Operation(
            name="sys.ui.mount",
            method="read",
            pattern="internal/ui/mounts/{path*}",
            handler=ui_mount,
            capability="read",
            summary="Tell which mount answers a path.",
        ),
    )


def _described(mount: Mount) -> dict[str, Any]:
    return {
        "type": mount.type,
        "description": mount.description,
        "accessor": mount.accessor,
        "uuid": mount.uuid,
        "options": dict(mount.options) or None,
        "local": False,
        "seal_wrap": False,
        "external_entropy_access": False,
        "config": {
            "default_lease_ttl": mount.default_lease_ttl,
            "max_lease_ttl": mount.max_lease_ttl,
            "force_no_cache": False,
        },
    }


async def _mounts(context: Context, *, auth: bool) -> dict[str, Any]:
    mounts = await context.core.mounts.load()
    return {
        mount.path.removeprefix("auth/") if auth else mount.path: _described(mount)
        for mount in sorted(mounts, key=lambda m: m.path)
        if mount.path.startswith("auth/") == auth
    }


async def list_mounts(context: Context, _body: None) -> Answer:
    """Answer every secrets engine."""
    return Answer(data=await _mounts(context, auth=False))


async def list_auth(context: Context, _body: None) -> Answer:
    """Answer every auth method."""
    return Answer(data=await _mounts(context, auth=True))


async def enable(context: Context, body: EnableRequest) -> Answer:
    """Mount a key/value store at a free path."""
    path = check_path(context.params["path"]) + "/"
    if "*" in path or "/+/" in f"/{path}":
        raise InvalidRequest("a mount's path has no wildcards of policies")
    made = new_mount(body)
    core = context.core
    for mount in await core.mounts.load():
        if path.startswith(mount.path) or mount.path.startswith(path):
            raise InvalidRequest(f"path is already in use at {mount.path}")
    if path.startswith(("auth/", "sys/", "cubbyhole/", "identity/")):
        raise InvalidRequest("this path is reserved")
    async with core.authority.change(context.fence) as change:
        await change.put(
            MOUNTS,
            path,
            {**made, "uuid": new_uuid(), "accessor": f"kv_{new_accessor()[:8]}"},
            expected_revision=0,
        )
    return Answer(detail={"written": change.written})


async def ui_mounts(context: Context, _body: None) -> Answer:
    """Answer the mounts below which the caller may do anything at all."""
    secret = await _mounts(context, auth=False)
    auth = await _mounts(context, auth=True)
    return Answer(
        data={
            "secret": {path: shown for path, shown in secret.items() if await _visible(context, path)},
            "auth": {path: shown for path, shown in auth.items() if await _visible(context, "auth/" + path)},
        }
    )


async def ui_mount(context: Context, _body: None) -> Answer:
    """Answer the mount that a path leads to.

    Where there is none the answer is the same as where the caller may do nothing, so that nobody
    finds out about mounts by asking.
    """
    path = context.params["path"]
    for mount in await context.core.mounts.load():
        if (path + "/").startswith(mount.path):
            if not await _visible(context, mount.path):
                raise PermissionDenied("nothing is granted below this mount")
            return Answer(data={"path": mount.path, **_described(mount)})
    raise PermissionDenied("no mount answers this path")


async def _visible(context: Context, mount: str) -> bool:
    """Tell whether some policy of the caller says anything about paths below ``mount``."""
    assert context.identity is not None
    policies = await context.core.policies.compiled(context.identity.policies)
    return any(policies.reaches(path) for path in (_ONE_STORE if mount in _ONE_STORE else (mount,)))
