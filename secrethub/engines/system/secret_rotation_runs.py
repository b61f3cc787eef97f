"""Rotation of secrets: runs. ``sys/rotation/{run,pause,resume,history}/<path of the secret>``."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from secrethub.clock import from_micros
from secrethub.engines.engine import Answer, Context, Operation
from secrethub.engines.listing import whole_number
from secrethub.engines.rotators.kinds import rotator_of
from secrethub.engines.rotators.rotator import Refused
from secrethub.engines.secret_rotation.beginning import begin, planned
from secrethub.engines.secret_rotation.confirming import unconfirmed
from secrethub.engines.secret_rotation.record import Rotation, place_of, rotation_of
from secrethub.engines.system.seal_answers import BegunAnswer, PastRunsAnswer, PausedAnswer
from secrethub.engines.system.secret_rotation import fresh_row, require_write
from secrethub.errors import Conflict, InvalidRequest, NotFound, Unavailable
from secrethub.storage import rotations
from secrethub.storage.authority import ROTATIONS
from secrethub.storage.rotations import Past
from secrethub.wire.durations import format_rfc3339

_PAGE = 100
_NEWEST = 1 << 62
_random = random.SystemRandom()


class RunRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a rotation now.

    Attributes:
        dry_run: only tell what would be done, and whether it could be.
    """

    dry_run: bool = False


def secret_rotation_run_operations() -> tuple[Operation, ...]:
    """Return the operations on runs."""
    return (
        Operation(
            name="sys.rotation.run",
            method="write",
            pattern="rotation/run/{path*}",
            handler=run_rotation,
            response=BegunAnswer,
            capability="update",
            request=RunRotation,
            changes=True,
            strict=True,
            plain=frozenset({"dry_run"}),
            summary="Rotate a secret now, or tell what that would do.",
        ),
        *(
            Operation(
                name=f"sys.rotation.{word}",
                method="write",
                pattern=f"rotation/{word}/{{path*}}",
                handler=handler,
                response=PausedAnswer,
                capability="update",
                changes=True,
                summary=summary,
            )
            for word, handler, summary in (
                ("pause", pause_rotation, "Let the schedule of a rotation rest."),
                ("resume", resume_rotation, "Let the schedule of a rotation go on from now."),
            )
        ),
        Operation(
            name="sys.rotation.history",
            method="read",
            pattern="rotation/history/{path*}",
            handler=read_history,
            response=PastRunsAnswer,
            capability="read",
            query=("before", "limit"),
            summary="Tell how the rotations of a secret ended, the newest first.",
        ),
    )


async def run_rotation(context: Context, body: RunRotation) -> Answer:
    """Begin a run, also while the schedule rests; it is carried on apart from the request."""
    core = context.core
    mount, path = await place_of(core, context.params["path"])
    await require_write(context, mount, path)
    row = await fresh_row(context, mount, path)
    rotation = rotation_of(row)
    if rotation.run is not None:
        raise Conflict(f"run {rotation.run.number} is under way, at step {rotation.run.step}")
    if body.dry_run:
        return Answer(data=await _rehearsed(context, rotation))
    try:
        begun = await begin(core, rotation, "request", context.fence)
    except Refused as exc:
        raise InvalidRequest(exc.message) from exc
    assert begun.run is not None
    return Answer(
        data={"run": begun.run.number, "old_version": begun.run.old_version},
        detail={"run": begun.run.number},
    )


async def pause_rotation(context: Context, _body: None) -> Answer:
    """Let the schedule rest; a run under way goes on to its end."""
    return await _pause(context, paused=True)


async def resume_rotation(context: Context, _body: None) -> Answer:
    """Let the schedule go on; what it left out meanwhile is not made up for."""
    return await _pause(context, paused=False)


async def read_history(context: Context, _body: None) -> Answer:
    """Answer a page of ended runs; ``before`` goes on behind a run's number."""
    core = context.core
    mount, path = await place_of(core, context.params["path"])
    rotation = rotation_of(await fresh_row(context, mount, path))
    before = whole_number(context.query.get("before"), name="before") or _NEWEST
    limit = min(_PAGE, whole_number(context.query.get("limit"), name="limit") or _PAGE)
    async with core.database.read() as connection:
        found = await rotations.history(connection, core.keyring(), rotation.uuid, before=before, limit=limit)
    return Answer(data={"runs": [_told(past) for past in found]})


async def _rehearsed(context: Context, rotation: Rotation) -> dict[str, Any]:
    """Return what a run would do; a value is planned and thrown away, and nothing is changed."""
    core, definition = context.core, rotation.definition
    problem = ""
    fields: list[str] = []
    version = 0
    try:
        setup, current, plan = await planned(core, rotation)
        version, fields = current.version, sorted(plan.fields)
        await rotator_of(definition.rotator).probe(setup, current.fields)
    except (InvalidRequest, Refused, Unavailable) as exc:
        problem = exc.message
    except TimeoutError:
        problem = "the target did not answer in time"
    waits = 0
    if definition.confirm_within:
        waits = len(await unconfirmed(core, rotation, _NEWEST))
    return {
        "dry_run": True,
        "possible": not problem,
        "problem": problem,
        "fields": fields,
        "old_version": version,
        "new_version": version + 1,
        "agents": waits,
    }


async def _pause(context: Context, *, paused: bool) -> Answer:
    core = context.core
    mount, path = await place_of(core, context.params["path"])
    await require_write(context, mount, path)
    async with core.authority.change(context.fence) as change:
        row = await change.get(ROTATIONS, mount.path + path)
        if row is None:
            raise NotFound("this secret is not rotated")
        rotation = rotation_of(row)
        if rotation.definition.paused == paused:
            return Answer(data={"paused": paused})
        definition = msgspec.structs.replace(rotation.definition, paused=paused)
        rotation = msgspec.structs.replace(rotation, definition=definition, scheduled_at=0)
        rotation = rotation.planned(core.clock.now())
        due = row.expires_at if rotation.run is not None else rotation.begins_at(_random.random())
        await change.put(ROTATIONS, rotation.key, rotation.body(), expires_at=due)
    return Answer(data={"paused": paused})


def _told(past: Past) -> dict[str, Any]:
    return {
        "run": past.number,
        "outcome": past.outcome,
        "trigger": past.trigger,
        "old_version": past.old_version,
        "new_version": past.new_version,
        "began_at": format_rfc3339(from_micros(past.began_at)),
        "ended_at": format_rfc3339(from_micros(past.ended_at)),
        "seconds": round((past.ended_at - past.began_at) / 1_000_000, 3),
        "missing": past.missing,
        "reason": past.reason,
    }
