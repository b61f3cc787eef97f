"""Data keys: a new one by hand, when new ones are made without asking, and what there is."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from secrethub.engines.answers import Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.rotation import ROW, load_rotation
from secrethub.engines.system.seal_answers import KeyStatusAnswer, RotateConfigAnswer, RotateStatusAnswer
from secrethub.engines.system.seal_gate import origin_of
from secrethub.errors import Stale
from secrethub.storage.authority import SETTINGS
from secrethub.storage.data_keys import MAX_USES, uses
from secrethub.storage.sealed_columns import left
from secrethub.wire.durations import format_go_duration, format_rfc3339, parse_duration


class RotationRequest(msgspec.Struct, frozen=True):
    """Settings; what is absent stays as it is.

    Attributes:
        enabled: whether keys are rotated without being asked for.
        interval: age at which a key is followed by another, at least a day; 0 for any age.
        max_operations: uses after which it is.
    """

    enabled: bool | None = None
    interval: str | int | None = None
    max_operations: int | None = None


def rotation_operations() -> tuple[Operation, ...]:
    """Return the operations on data keys."""
    return (
        Operation(
            name="sys.rotate.config",
            method="read",
            pattern="rotate/config",
            handler=read_config,
            response=RotateConfigAnswer,
            capability="read",
            summary="Tell when data keys are rotated without being asked for.",
        ),
        Operation(
            name="sys.rotate.config.write",
            method="write",
            pattern="rotate/config",
            handler=write_config,
            response=Nothing,
            capability="update",
            request=RotationRequest,
            changes=True,
            sudo=True,
            plain=frozenset({"enabled", "interval", "max_operations"}),
            summary="Say when data keys are rotated without being asked for.",
        ),
        Operation(
            name="sys.rotate.status",
            method="read",
            pattern="rotate/status",
            handler=read_status,
            response=RotateStatusAnswer,
            capability="read",
            summary="Tell how much is still sealed with older data keys than the newest.",
        ),
        Operation(
            name="sys.rotate",
            method="write",
            pattern="rotate",
            handler=rotate,
            response=Nothing,
            capability="update",
            changes=True,
            sudo=True,
            summary="Make a new data key, which seals from now on.",
        ),
        Operation(
            name="sys.key-status",
            method="read",
            pattern="key-status",
            handler=key_status,
            response=KeyStatusAnswer,
            capability="read",
            summary="Tell the newest data key's number, age and uses.",
        ),
    )


async def rotate(context: Context, _body: None) -> Answer:
    """Have a new data key made; when this returns it is durable, and it seals once every process knows it."""
    core = context.core
    number = await core.seal.rotate(core.keyring().newest, origin_of(context))
    await core.data_keys.learn_of(number)
    return Answer(detail={"term": number})


async def key_status(context: Context, _body: None) -> Answer:
    """Answer the newest data key's number, when it was made, and how often it was used at most."""
    core = context.core
    # A key that was made through another process may just have been announced.
    await core.ledger.look()
    await core.data_keys.hear()
    keyring = core.keyring()
    number = keyring.newest
    used = await uses(core.database, number)
    made_at = datetime.fromtimestamp(keyring.made_at(number), UTC)
    return Answer(data={"term": number, "install_time": format_rfc3339(made_at), "encryptions": used})


async def read_status(context: Context, _body: None) -> Answer:
    """Answer what is still sealed with older data keys; that is sealed anew in the background."""
    core = context.core
    await core.ledger.look()
    await core.data_keys.hear()
    keyring = core.keyring()
    counted = await left(core.database, keyring.newest)
    return Answer(
        data={
            "term": keyring.newest,
            "sealing": keyring.sealing,
            "left": sum(counted.values()),
            "columns": [
                {"table": table, "column": column, "left": count}
                for (table, column), count in counted.items()
            ],
        }
    )


async def read_config(context: Context, _body: None) -> Answer:
    """Answer the settings."""
    found = await load_rotation(context.core)
    return Answer(
        data={
            "enabled": found.enabled,
            "interval": format_go_duration(found.interval) if found.interval else 0,
            "max_operations": found.max_operations,
        }
    )


async def write_config(context: Context, body: RotationRequest) -> Answer:
    """Change the settings that were given."""
    given: dict[str, bool | int] = {}
    if body.enabled is not None:
        given["enabled"] = body.enabled
    if body.interval is not None:
        given["interval"] = parse_duration(body.interval)
    if body.max_operations is not None:
        given["max_operations"] = body.max_operations
    before = await load_rotation(context.core)
    after = msgspec.structs.replace(before, **given)
    after.check()
    async with context.core.authority.change(context.fence) as change:
        row = await change.get(SETTINGS, ROW)
        if row is not None and row.body != msgspec.to_builtins(before):
            raise Stale("the settings have changed meanwhile")
        await change.put(SETTINGS, ROW, msgspec.to_builtins(after))
    if after.enabled:
        return EMPTY
    return Answer(
        warnings=(f"nothing can be written once a data key was used {MAX_USES} times: rotate in time",)
    )
