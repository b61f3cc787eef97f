"""Auth methods: the operations that list, enable, tune and disable them.

All but the list need ``sudo``, as in Vault. What tunes a mount by ``sys/mounts`` tunes an auth method there,
too, for that is where Vault's command line writes; the right to do so is no smaller.
"""

from __future__ import annotations

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.mounts import Mount
from secrethub.engines.system.answers import MountAnswer, TuningAnswer
from secrethub.engines.system.mount_changes import auth_path, disable_auth, enable_auth, tune_auth
from secrethub.engines.system.mount_settings import EnableRequest, MountConfig
from secrethub.engines.system.mounts import described, described_mounts, tuning
from secrethub.errors import InvalidRequest

_LIMITS = frozenset({"default_lease_ttl", "max_lease_ttl", "description", "token_type"})


def auth_operations() -> tuple[Operation, ...]:
    """Return the operations on auth methods."""
    return (
        Operation(
            name="sys.auth",
            method="read",
            pattern="auth",
            handler=list_auth,
            response=dict[str, MountAnswer],
            capability="read",
            summary="List auth methods.",
        ),
        *(
            Operation(
                name="sys.auth.tuning",
                method="read",
                pattern=pattern,
                handler=read_tuning,
                response=TuningAnswer,
                capability="read",
                sudo=True,
                summary="Read the settings of an auth method.",
            )
            for pattern in ("auth/{path*}/tune", "mounts/auth/{path*}/tune")
        ),
        *(
            Operation(
                name="sys.auth.tune",
                method="write",
                pattern=pattern,
                handler=tune_auth,
                response=Nothing,
                capability="update",
                request=MountConfig,
                changes=True,
                sudo=True,
                plain=_LIMITS,
                summary="Change the settings of an auth method.",
            )
            for pattern in ("auth/{path*}/tune", "mounts/auth/{path*}/tune")
        ),
        Operation(
            name="sys.auth.read",
            method="read",
            pattern="auth/{path*}",
            handler=read_auth,
            response=MountAnswer,
            capability="read",
            sudo=True,
            summary="Read an auth method.",
        ),
        Operation(
            name="sys.auth.enable",
            method="write",
            pattern="auth/{path*}",
            handler=enable_auth,
            response=Nothing,
            capability="update",
            request=EnableRequest,
            changes=True,
            sudo=True,
            plain=frozenset({"type", "description"}),
            summary="Enable an auth method.",
        ),
        Operation(
            name="sys.auth.disable",
            method="delete",
            pattern="auth/{path*}",
            handler=disable_auth,
            response=Nothing,
            capability="delete",
            changes=True,
            sudo=True,
            summary="Disable an auth method with everything in it, and revoke its tokens.",
        ),
    )


async def list_auth(context: Context, _body: None) -> Answer:
    """Answer every auth method."""
    return Answer(data=await described_mounts(context, auth=True))


async def read_auth(context: Context, _body: None) -> Answer:
    """Answer one auth method."""
    return Answer(data=described(await _named(context)))


async def read_tuning(context: Context, _body: None) -> Answer:
    """Answer an auth method's settings, with the limits that hold for its tokens."""
    return Answer(data=tuning(await _named(context)))


async def _named(context: Context) -> Mount:
    path = auth_path(context)
    for mount in await context.core.mounts.load():
        if mount.path == path:
            return mount
    raise InvalidRequest(f"no auth method is enabled at {path}")
