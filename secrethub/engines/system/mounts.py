"""What is mounted where: the operations on mounts, and what is told of them.

Vault's clients ask which mount answers a path before every call.
"""

from __future__ import annotations

from typing import Any

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.mounts import AUTH, Mount
from secrethub.engines.system.answers import MountAnswer, MountsAnswer, PathMountAnswer, TuningAnswer
from secrethub.engines.system.lockout_settings import LOCKING, shown_lockout
from secrethub.engines.system.mount_changes import disable, enable, mount_path, tune
from secrethub.engines.system.mount_settings import DEFAULT_TTL, EnableRequest, MountConfig
from secrethub.errors import InvalidRequest, PermissionDenied

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
            response=dict[str, MountAnswer],
            capability="read",
            summary="List secrets engines.",
        ),
        Operation(
            name="sys.mounts.tuning",
            method="read",
            pattern="mounts/{path*}/tune",
            handler=read_tuning,
            response=TuningAnswer,
            capability="read",
            summary="Read the settings of a secrets engine.",
        ),
        Operation(
            name="sys.mounts.tune",
            method="write",
            pattern="mounts/{path*}/tune",
            handler=tune,
            response=Nothing,
            capability="update",
            request=MountConfig,
            changes=True,
            plain=frozenset({"default_lease_ttl", "max_lease_ttl", "description"}),
            summary="Change the settings of a secrets engine.",
        ),
        Operation(
            name="sys.mounts.read",
            method="read",
            pattern="mounts/{path*}",
            handler=read_mount,
            response=MountAnswer,
            capability="read",
            summary="Read a secrets engine.",
        ),
        Operation(
            name="sys.mounts.enable",
            method="write",
            pattern="mounts/{path*}",
            handler=enable,
            response=Nothing,
            capability="update",
            request=EnableRequest,
            changes=True,
            plain=frozenset({"type", "description"}),
            summary="Mount a secrets engine.",
        ),
        Operation(
            name="sys.mounts.disable",
            method="delete",
            pattern="mounts/{path*}",
            handler=disable,
            response=Nothing,
            capability="delete",
            changes=True,
            summary="Remove a secrets engine with everything in it.",
        ),
        Operation(
            name="sys.ui.mounts",
            method="read",
            pattern="internal/ui/mounts",
            handler=ui_mounts,
            response=MountsAnswer,
            capability="read",
            summary="List mounts for clients.",
        ),
        Operation(
            name="sys.ui.mount",
            method="read",
            pattern="internal/ui/mounts/{path*}",
            handler=ui_mount,
            response=PathMountAnswer,
            capability="read",
            summary="Tell which mount answers a path.",
        ),
    )


def described(mount: Mount) -> dict[str, Any]:
    """Return what is told of a mount."""
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
            **_token_type(mount),
        },
    }


def _token_type(mount: Mount) -> dict[str, str]:
    return {"token_type": "default-service"} if mount.path.startswith(AUTH) else {}


async def described_mounts(context: Context, *, auth: bool) -> dict[str, Any]:
    """Return what is told of every auth method, by its path below ``auth/``, or of every other mount."""
    mounts = await context.core.mounts.load()
    return {
        mount.path.removeprefix(AUTH) if auth else mount.path: described(mount)
        for mount in sorted(mounts, key=lambda m: m.path)
        if mount.path.startswith(AUTH) == auth
    }


async def list_mounts(context: Context, _body: None) -> Answer:
    """Answer every secrets engine."""
    return Answer(data=await described_mounts(context, auth=False))


async def read_mount(context: Context, _body: None) -> Answer:
    """Answer one secrets engine."""
    return Answer(data=described(await _named(context)))


async def read_tuning(context: Context, _body: None) -> Answer:
    """Answer a mount's settings, with the limits of leases that hold for it."""
    return Answer(data=tuning(await _named(context)))


def tuning(mount: Mount) -> dict[str, Any]:
    """Return a mount's settings, with the limits of leases that hold for it."""
    data: dict[str, Any] = {
        "description": mount.description,
        "default_lease_ttl": mount.default_lease_ttl or DEFAULT_TTL,
        "max_lease_ttl": mount.max_lease_ttl or DEFAULT_TTL,
        "force_no_cache": False,
        **_token_type(mount),
    }
    if mount.options:
        data["options"] = dict(mount.options)
    if mount.type == LOCKING:
        data["user_lockout_config"] = shown_lockout(mount.settings)
    return data


async def _named(context: Context) -> Mount:
    """Return the secrets engine that the path names.

    Raises:
        InvalidRequest: there is none (400, as Vault answers).
    """
    path = mount_path(context)
    for mount in await context.core.mounts.load():
        if mount.path == path and not path.startswith(AUTH):
            return mount
    raise InvalidRequest(f"no secrets engine is mounted at {path}")


async def ui_mounts(context: Context, _body: None) -> Answer:
    """Answer the mounts below which the caller may do anything at all."""
    secret = await described_mounts(context, auth=False)
    auth = await described_mounts(context, auth=True)
    return Answer(
        data={
            "secret": {path: shown for path, shown in secret.items() if await visible(context, path)},
            "auth": {path: shown for path, shown in auth.items() if await visible(context, AUTH + path)},
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
            if not await visible(context, mount.path):
                raise PermissionDenied("nothing is granted below this mount")
            return Answer(data={"path": mount.path, **described(mount)})
    raise PermissionDenied("no mount answers this path")


async def visible(context: Context, mount: str) -> bool:
    """Tell whether some policy of the caller says anything about paths below ``mount``."""
    assert context.identity is not None
    policies = await context.core.policies.compiled(context.identity)
    return any(policies.reaches(path) for path in (_ONE_STORE if mount in _ONE_STORE else (mount,)))
