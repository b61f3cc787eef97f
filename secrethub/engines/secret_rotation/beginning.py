"""Beginning a run: the plan is made and stored before anything is done."""

from __future__ import annotations

from datetime import datetime

import msgspec

from secrethub.clock import micros
from secrethub.engines.engine import Fence
from secrethub.engines.mounts import Mount
from secrethub.engines.rotators.kinds import rotator_of
from secrethub.engines.rotators.rotator import Plan, Setup, TargetAway
from secrethub.engines.runtime import Core
from secrethub.engines.secret_rotation.record import Rotation, place_of
from secrethub.engines.secret_rotation.secret import Current, read_secret
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.rotation.steps import Run, Trigger
from secrethub.storage.authority import ROTATIONS


async def store_of(core: Core, rotation: Rotation) -> tuple[Mount, str]:
    """Return the mount of a rotation's secret, and its path below it.

    Raises:
        InvalidRequest: the store that it was configured for is not there any more.
    """
    mount, path = await place_of(core, rotation.key)
    if mount.uuid != rotation.mount:
        raise InvalidRequest("another store is mounted there by now")
    return mount, path


def setup_of(core: Core, rotation: Rotation, number: int) -> Setup:
    """Return what a rotator is to know for a run."""
    run = rotation.run
    return Setup(
        core=core,
        key=rotation.key,
        rotation=rotation.uuid,
        run=number,
        attempt=1 if run is None else run.attempts + 1,
        waiting_since=0 if run is None else run.waiting_since,
        options=rotation.definition.options,
        secrets=rotation.secrets(core.keyring()),
        mounts=rotation.definition.mounts,
    )


async def planned(core: Core, rotation: Rotation) -> tuple[Setup, Current, Plan]:
    """Return what the next run would do, without doing any of it.

    Raises:
        InvalidRequest, Refused: it cannot be done.
        TargetAway: what it is planned with does not answer.
        IntegrityFailure, Unavailable: the secret cannot be read.
    """
    mount, path = await store_of(core, rotation)
    current = await read_secret(core, mount, path)
    setup = setup_of(core, rotation, rotation.runs + 1)
    try:
        fields, notes = await rotator_of(rotation.definition.rotator).plan(setup, current.fields)
    except Unavailable as exc:
        raise TargetAway(exc.message) from exc
    before = {name: current.fields[name] for name in fields if name in current.fields}
    return setup, current, Plan(fields=fields, before=before, notes=notes)


def new_run(rotation: Rotation, trigger: Trigger, now: datetime, *, version: int) -> Run:
    """Return the next run of a rotation."""
    return Run(number=rotation.runs + 1, trigger=trigger, began_at=micros(now), old_version=version)


async def begin(core: Core, rotation: Rotation, trigger: Trigger, fence: Fence) -> Rotation:
    """Begin a run, to be carried on at once by whoever looks first.

    Raises:
        InvalidRequest, Refused, IntegrityFailure: it cannot be; nothing happened.
        Conflict: the rotation was changed meanwhile; nothing happened.
        Stale: the decision is older than the database; nothing happened.
        Unavailable: the database does not answer.
    """
    now = core.clock.now()
    _, current, plan = await planned(core, rotation)
    run = new_run(rotation, trigger, now, version=current.version)
    begun = rotation.begun(core.keyring(), run, plan)
    async with core.authority.issue(fence) as change:
        row = await change.put(
            ROTATIONS,
            rotation.key,
            begun.body(),
            expires_at=now,
            expected_revision=rotation.revision,
        )
    return msgspec.structs.replace(begun, revision=row.revision)
