"""Sinks of the ledger: ``sys/audit``, as Vault's clients know its audit devices, and ``sys/audit-hash``.

Unlike Vault's devices a sink never holds a request up: the ledger is durable in the database, and sinks get
copies of it a moment later. A sink that takes nothing falls behind, visibly.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from secrethub.audit.masking import mask_leaf
from secrethub.engines.answers import Nothing
from secrethub.engines.engine import Answer, Context, Hidden, Operation
from secrethub.engines.sinks.kinds import PREFIX, all_sinks, body_of, checked_options, target_of
from secrethub.engines.sinks.target import Sink, TargetFailed
from secrethub.engines.system.answers import HashedAnswer, SinkAnswer
from secrethub.errors import InvalidRequest
from secrethub.ids import new_uuid
from secrethub.sensitive import Sensitive
from secrethub.storage.authority import AUDIT_SETTINGS
from secrethub.storage.sinks import SinkState, begin, forget, state_of
from secrethub.wire.durations import format_rfc3339

RESERVED = frozenset({"archive", "entries", "export", "public-key", "refusals", "verify"})
"""Paths below ``sys/audit/`` that are something else."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST = 32
_MAX_DESCRIPTION = 1024


class EnableSink(Hidden, msgspec.Struct, frozen=True, kw_only=True):
    """A new sink.

    Attributes:
        type: ``file``, ``syslog`` or ``http``.
        description: for people.
        options: of its type.
        local: taken, and without a meaning: nothing is replicated.
    """

    type: str
    description: str = ""
    options: dict[str, str | bool | int] = {}
    local: bool = False


class HashInput(Hidden, msgspec.Struct, frozen=True):
    """A value that may be in the ledger."""

    input: str


def sink_operations() -> tuple[Operation, ...]:
    """Return the operations on sinks."""
    return (
        Operation(
            name="sys.audit.sinks",
            method="read",
            pattern="audit",
            handler=list_sinks,
            response=dict[str, SinkAnswer],
            capability="read",
            sudo=True,
            summary="List the sinks of the audit ledger, and how far behind they are.",
        ),
        Operation(
            name="sys.audit.sinks.enable",
            method="write",
            pattern="audit/{name}",
            handler=enable,
            response=Nothing,
            capability="update",
            request=EnableSink,
            changes=True,
            sudo=True,
            plain=frozenset(
                {"type", "description", "local"}
                | {f"options.{name}" for name in ("file_path", "facility", "tag", "url", "max_lag", "node")}
            ),
            summary="Copy the audit ledger to a file, to syslog or to an HTTP collector.",
        ),
        Operation(
            name="sys.audit.sinks.disable",
            method="delete",
            pattern="audit/{name}",
            handler=disable,
            response=Nothing,
            capability="delete",
            changes=True,
            sudo=True,
            summary="Remove a sink of the audit ledger.",
        ),
        Operation(
            name="sys.audit.hash",
            method="write",
            pattern="audit-hash/{name}",
            handler=calculate,
            response=HashedAnswer,
            capability="update",
            request=HashInput,
            summary="Tell what a value looks like in the audit ledger.",
        ),
    )


def _named(context: Context) -> str:
    name = context.params["name"]
    if _NAME.fullmatch(name) is None or name.lower() in RESERVED:
        raise InvalidRequest("a sink's name has letters, digits, dots and dashes, and is no other endpoint")
    return name


async def list_sinks(context: Context, _body: None) -> Answer:
    """Answer every sink, by its name with a slash as Vault does, and how it fares."""
    told: dict[str, Any] = {}
    sinks = await all_sinks(context.core)
    keyring = context.core.keyring()
    async with context.core.database.read() as connection:
        for sink in sinks:
            told[f"{sink.name}/"] = _described(sink, await state_of(connection, keyring, sink.uuid))
    return Answer(data=told)


def _described(sink: Sink, state: SinkState) -> dict[str, Any]:
    return {
        "type": sink.type,
        "path": f"{sink.name}/",
        "description": sink.description,
        "options": dict(sink.options) | ({"authorization": "***"} if sink.authorization is not None else {}),
        "local": False,
        "status": {
            "behind": state.behind,
            "delivered": state.delivered,
            "skipped": state.skipped,
            "node": state.node,
            "last_delivery": None if state.delivered_at is None else format_rfc3339(state.delivered_at),
            "failing_since": None if state.failed_at is None else format_rfc3339(state.failed_at),
            "error": state.error,
        },
    }


async def enable(context: Context, body: EnableSink) -> Answer:
    """Make a sink that gets entries from now on; its target must be there already."""
    name, core = _named(context), context.core
    given = {key: _text(value) for key, value in body.options.items()}
    options, header = checked_options(body.type, given)
    if len(body.description) > _MAX_DESCRIPTION:
        raise InvalidRequest(f"description is longer than {_MAX_DESCRIPTION} characters")
    sinks = await all_sinks(core)
    if any(sink.name.lower() == name.lower() for sink in sinks):
        raise InvalidRequest("path already in use")
    if len(sinks) >= _MOST:
        raise InvalidRequest(f"there are at most {_MOST} sinks")
    sink = Sink(
        name=name,
        uuid=new_uuid(),
        type=body.type,
        description=body.description,
        options=options,
        authorization=None if header is None else Sensitive(header),
    )
    target = target_of(core.settings, sink)
    if options.get("node", core.settings.node) == core.settings.node:
        try:
            await target.check()
        except TargetFailed as exc:
            raise InvalidRequest(f"the target cannot be used: {exc.reason}") from exc
        finally:
            await target.close()
    async with core.authority.change(context.fence) as change:
        await change.put(AUDIT_SETTINGS, PREFIX + name, body_of(core.keyring(), sink), expected_revision=0)
        await begin(change.connection, core.keyring(), sink.uuid)
    return Answer()


def _text(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def disable(context: Context, _body: None) -> Answer:
    """Remove a sink; that there is none is no error, as in Vault."""
    key, core = PREFIX + _named(context), context.core
    async with core.authority.change(context.fence) as change:
        row = await change.get(AUDIT_SETTINGS, key)
        if row is not None:
            await change.delete(AUDIT_SETTINGS, key)
            await forget(change.connection, row.body["uuid"])
    return Answer()


async def calculate(context: Context, body: HashInput) -> Answer:
    """Answer what the ledger has instead of a text. Every sink has the same."""
    name = _named(context)
    if await context.core.authority.get(AUDIT_SETTINGS, PREFIX + name) is None:
        raise InvalidRequest("unknown audit backend")
    return Answer(data={"hash": mask_leaf(body.input, context.core.keyring().derived("audit-mask"))})
