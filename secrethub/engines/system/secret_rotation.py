"""Rotation of secrets: what is configured, ``sys/rotation/config/<path of the secret>``.

Whoever configures a rotation has a secret overwritten again and again. So beside the right to this path he
needs the one to write the secret; he never sees its value here.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from secrethub.clock import from_micros
from secrethub.engines.answers import Names, Nothing
from secrethub.engines.engine import EMPTY, Answer, Context, Operation
from secrethub.engines.kv.rights import Rights
from secrethub.engines.listing import PAGES, shown
from secrethub.engines.mounts import Mount
from secrethub.engines.question import question_of
from secrethub.engines.rotators.kinds import checked_options, rotator_of
from secrethub.engines.secret_rotation.record import Definition, Late, Rotation, place_of, rotation_of
from secrethub.engines.secret_rotation.secret import read_secret
from secrethub.engines.system.seal_answers import RotationAnswer
from secrethub.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from secrethub.ids import new_uuid
from secrethub.policy.decision import Allowed, decide
from secrethub.rotation.schedule import LONGEST, Schedule
from secrethub.storage import agent_orders, rotations
from secrethub.storage.authority import ROTATIONS, Row
from secrethub.wire.durations import format_rfc3339, parse_duration

DEFAULT_CONFIRM = "5m"
_PLAIN = frozenset({"rotator", "every", "cron", "zone", "jitter", "confirm_within", "late"})
_random = random.SystemRandom()


class WriteRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do to a secret, and when. Not shown by ``repr``.

    Attributes:
        rotator: the kind of rotator.
        options: of the rotator; those that are secret stay as they are unless they are given.
        every: duration between two rotations.
        cron: five fields as in crontab(5), instead.
        zone: IANA time zone in which ``cron`` is read.
        jitter: duration by which a rotation is late at most.
        confirm_within: duration for which the agents that use the secret are waited for; 0 for not at all.
        late: what is done then: ``retire`` the old value all the same, or ``undo`` the rotation.
    """

    rotator: str
    options: dict[str, str | int | bool] = {}
    every: str | int = 0
    cron: str = ""
    zone: str = "UTC"
    jitter: str | int = 0
    confirm_within: str | int = DEFAULT_CONFIRM
    late: Late = "retire"

    def __repr__(self) -> str:
        return f"WriteRotation(rotator={self.rotator!r})"

    def schedule(self) -> Schedule:
        """Return the schedule.

        Raises:
            InvalidRequest: it cannot be.
        """
        schedule = Schedule(
            every=parse_duration(self.every),
            cron=self.cron.strip(),
            zone=self.zone,
            jitter=parse_duration(self.jitter),
        )
        schedule.check()
        return schedule


def secret_rotation_operations() -> tuple[Operation, ...]:
    """Return the operations on what is configured."""
    one = "rotation/config/{path*}"
    return (
        Operation(
            name="sys.rotation.list",
            method="list",
            pattern="rotation/config",
            handler=list_rotations,
            response=Names,
            capability="list",
            query=PAGES,
            summary="List the secrets that are rotated.",
        ),
        Operation(
            name="sys.rotation.read",
            method="read",
            pattern=one,
            handler=read_rotation,
            response=RotationAnswer,
            capability="read",
            summary="Tell how and when a secret is rotated, and how far it is.",
        ),
        Operation(
            name="sys.rotation.write",
            method="write",
            pattern=one,
            handler=write_rotation,
            response=Nothing,
            capability="update",
            request=WriteRotation,
            changes=True,
            strict=True,
            plain=_PLAIN,
            summary="Say how and when a secret is rotated.",
        ),
        Operation(
            name="sys.rotation.delete",
            method="delete",
            pattern=one,
            handler=delete_rotation,
            response=Nothing,
            capability="delete",
            query=("force",),
            changes=True,
            summary="Rotate a secret no more.",
        ),
    )


async def list_rotations(context: Context, _body: None) -> Answer:
    """Answer keys in order, at most 1,000; ``after`` goes on behind one."""
    context.depends("authority", f"{ROTATIONS.name}/")
    context.depends("issued", f"{ROTATIONS.name}/")
    keys = await context.core.authority.keys(ROTATIONS, after=context.query.get("after", ""))
    names = await shown(context, keys)
    if not names:
        raise NotFound("no secret is rotated")
    return Answer(data={"keys": names})


async def read_rotation(context: Context, _body: None) -> Answer:
    """Answer what is configured and how far the run under way is; secrets of the rotator only by name."""
    mount, path = await place_of(context.core, context.params["path"])
    row = await fresh_row(context, mount, path)
    return Answer(data=described(context, row))


async def write_rotation(context: Context, body: WriteRotation) -> Answer:
    """Configure a rotation, between two runs of it."""
    core = context.core
    mount, path = await place_of(core, context.params["path"])
    await require_write(context, mount, path)
    key, schedule = mount.path + path, body.schedule()
    confirm_within = parse_duration(body.confirm_within)
    if confirm_within > LONGEST:
        raise InvalidRequest("confirm_within is a duration of at most ten years")
    rotator = rotator_of(body.rotator)
    needed = rotator.needs({name: str(value) for name, value in body.options.items()})
    mounts = {needs: await _require_update(context, needs) for needs in needed}
    keyring, now = core.keyring(), core.clock.now()
    async with core.authority.change(context.fence) as change:
        row = await change.get(ROTATIONS, key)
        before = None if row is None else rotation_of(row)
        if before is not None and before.run is not None:
            raise Conflict(f"run {before.run.number} is under way: write this when it has ended")
        kept = before.secrets(keyring) if before and before.definition.rotator == body.rotator else {}
        options, secrets = checked_options(rotator, body.options, kept)
        definition = Definition(
            rotator=body.rotator,
            options=options,
            mounts=mounts,
            schedule=schedule,
            confirm_within=confirm_within,
            late=body.late,
            paused=before is not None and before.definition.paused,
        )
        rotation = before or Rotation(
            key=key, uuid=new_uuid(), mount=mount.uuid, path=path, definition=definition
        )
        rotation = msgspec.structs.replace(
            rotation, mount=mount.uuid, path=path, definition=definition, scheduled_at=0
        ).with_secrets(keyring, secrets)
        rotation = rotation.planned(now)
        await change.put(ROTATIONS, key, rotation.body(), expires_at=rotation.begins_at(_random.random()))
    return EMPTY


async def delete_rotation(context: Context, _body: None) -> Answer:
    """Forget a rotation and its past. A run under way is only left as it is with ``force``."""
    core = context.core
    mount, path = await place_of(core, context.params["path"])
    await require_write(context, mount, path)
    key = mount.path + path
    async with core.authority.change(context.fence) as change:
        row = await change.get(ROTATIONS, key)
        if row is None:
            return EMPTY
        rotation = rotation_of(row)
        if rotation.run is not None and context.query.get("force", "") != "true":
            raise Conflict("a rotation is under way; with force=true it is left as it is")
        await change.delete(ROTATIONS, key)
        await rotations.forget(change.connection, rotation.uuid)
        await agent_orders.forget(change.connection, rotation.uuid)
    return EMPTY


async def fresh_row(context: Context, mount: Mount, path: str) -> Row:
    """Return the row of a secret's rotation, as the database has it.

    Raises:
        NotFound: the secret is not rotated.
    """
    key = mount.path + path
    for kind in ("authority", "issued"):
        context.depends(kind, f"{ROTATIONS.name}/{key}")
    row = await context.core.authority.fetch(ROTATIONS, key)
    if row is None:
        raise NotFound("this secret is not rotated")
    return row


async def require_write(context: Context, mount: Mount, path: str) -> None:
    """Check that whoever asks may write the secret itself.

    Raises:
        PermissionDenied: no.
    """
    assert context.identity is not None
    policies = await context.core.policies.compiled(context.identity)
    rights = Rights(mount.path, policies, context.when)
    current = await read_secret(context.core, mount, path)
    rights.require("update" if current.version else "create", "data", path)


async def _require_update(context: Context, path: str) -> str:
    """Check that whoever asks may update something that a rotator uses, and return the UUID of its mount.

    Raises:
        InvalidRequest: nothing can be updated there.
        PermissionDenied: somebody else may.
    """
    assert context.identity is not None
    route = await context.core.mounts.route("write", path)
    question = question_of(route, "write", path, context.when)
    if not isinstance(decide(question, await context.core.policies.compiled(context.identity)), Allowed):
        raise PermissionDenied(f"no policy allows update at {path}")
    return route.mount.uuid


def described(context: Context, row: Row) -> dict[str, Any]:
    """Return what is told of a rotation."""
    rotation = rotation_of(row)
    definition, run = rotation.definition, rotation.run
    schedule = definition.schedule
    hidden = dict.fromkeys(rotation.secrets(context.core.keyring()), "<set>")
    next_at = None if run is not None or row.expires_at is None else format_rfc3339(row.expires_at)
    return {
        "path": rotation.key,
        "rotator": definition.rotator,
        "options": {**definition.options, **hidden},
        "every": schedule.every,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "jitter": schedule.jitter,
        "confirm_within": definition.confirm_within,
        "late": definition.late,
        "paused": definition.paused,
        "runs": rotation.runs,
        "next_at": next_at,
        "run": None
        if run is None
        else {
            "run": run.number,
            "step": run.step,
            "trigger": run.trigger,
            "began_at": format_rfc3339(from_micros(run.began_at)),
            "old_version": run.old_version,
            "new_version": run.new_version,
            "attempts": run.attempts,
            "reason": run.reason,
        },
    }
