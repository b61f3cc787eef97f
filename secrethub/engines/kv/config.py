"""Settings of a whole mount: ``config``. They are part of the mount's authenticated row."""

from __future__ import annotations

import msgspec

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.kv.answers import ConfigAnswer
from secrethub.engines.kv.rules import checked_versions, duration_text, mount_duration, mount_settings
from secrethub.engines.kv.store import settings_of
from secrethub.errors import Stale
from secrethub.storage.authority import MOUNTS


class ConfigRequest(msgspec.Struct, frozen=True):
    """Settings of the mount; what is absent stays as it is.

    Attributes:
        max_versions: versions that are kept of each secret, 0 for the default.
        cas_required: whether every write must say which version it follows.
        delete_version_after: how long new versions are readable, 0 for ever; negative to forbid that
            secrets say otherwise.
    """

    max_versions: int | None = None
    cas_required: bool | None = None
    delete_version_after: str | int | None = None


def config_operations() -> tuple[Operation, ...]:
    """Return the operations on a mount's settings."""
    return (
        Operation(
            name="kv.config",
            method="read",
            pattern="config",
            handler=read,
            response=ConfigAnswer,
            capability="read",
            summary="Read the settings of the store.",
        ),
        Operation(
            name="kv.config.write",
            method="write",
            pattern="config",
            handler=write,
            response=Nothing,
            capability="update",
            request=ConfigRequest,
            changes=True,
            plain=frozenset({"max_versions", "cas_required", "delete_version_after"}),
            summary="Write the settings of the store.",
        ),
    )


async def read(context: Context, _body: None) -> Answer:
    """Answer the mount's settings."""
    settings = settings_of(context)
    return Answer(
        data={
            "cas_required": settings.cas_required,
            "delete_version_after": duration_text(settings.delete_version_after),
            "max_versions": settings.max_versions,
        }
    )


async def write(context: Context, body: ConfigRequest) -> Answer:
    """Change the mount's settings; they hold for versions that are written from now on."""
    given: dict[str, int | bool] = {}
    if body.max_versions is not None:
        given["max_versions"] = checked_versions(body.max_versions)
    if body.cas_required is not None:
        given["cas_required"] = body.cas_required
    if body.delete_version_after is not None:
        given["delete_version_after"] = mount_duration(body.delete_version_after)
    if not given:
        return EMPTY
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(MOUNTS, context.mount)
        if row is None or row.body["uuid"] != context.mount_id:
            raise Stale("the mount is another one")
        settings = msgspec.structs.replace(mount_settings(row.body.get("settings", {})), **given)
        await change.put(MOUNTS, context.mount, {**row.body, "settings": msgspec.to_builtins(settings)})
    return EMPTY
