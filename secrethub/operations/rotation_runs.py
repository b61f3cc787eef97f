"""Carrying runs on, step by step. See ``rotation/steps.py`` for the order.

Whoever works at a rotation has its claim, which ends by itself, and moves its row on only from the revision
that he knows: of two who think that it is theirs one comes too late. What a step does outside comes after
its entry in the ledger and before its row; if a process dies in between, the step is done again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from secrethub.audit.event import Outcome
from secrethub.audit.masking import mask
from secrethub.clock import micros
from secrethub.engines.own_changes import own_changes, present_fence
from secrethub.engines.rotators.kinds import rotator_of
from secrethub.engines.rotators.rotator import Awaited, Plan, Refused, Rotator, Setup, TargetAway
from secrethub.engines.runtime import Core
from secrethub.engines.secret_rotation.beginning import begin, new_run, setup_of, store_of
from secrethub.engines.secret_rotation.confirming import unconfirmed
from secrethub.engines.secret_rotation.record import Rotation, rotation_of
from secrethub.engines.secret_rotation.secret import announced_as, promoted, reverted, write_secret
from secrethub.errors import Conflict, IntegrityFailure, InvalidRequest, Unavailable
from secrethub.operations.note import note
from secrethub.rotation.steps import Run, awaited, failed, pause, succeeded, waited
from secrethub.storage import agent_orders, agent_watches, rotations
from secrethub.storage.authority import ROTATIONS

STEP_SECONDS = 10.0
"""That a rotator has for one step: less than the claim of whoever lets it."""

_SHORTEST_LOOK, _LONGEST_LOOK = 0.1, 5.0
"""Seconds between two looks for confirmations, or for what somebody was asked to do: a quarter of what was
waited already, within these."""

_AWAY_SECONDS = 60.0
"""Until a run is begun for which a target was asked that did not answer."""

_random = random.SystemRandom()
_log = logging.getLogger(__name__)


async def advance(core: Core, key: str) -> bool:
    """Do what is due at a rotation; tell whether there may be more at once.

    Raises:
        Conflict, Stale: somebody else changed it, or authority; look again.
        Sealed, Unavailable: not now.
        IntegrityFailure: its row is not authentic.
    """
    row = await core.authority.fetch(ROTATIONS, key)
    if row is None or row.expires_at is None or row.expires_at > core.clock.now():
        return False
    rotation = rotation_of(row)
    if rotation.run is None:
        return await _begin(core, rotation)
    if rotation.run.step == "confirm":
        return await _confirm(core, rotation, rotation.run)
    return await _step(core, rotation, rotation.run)


async def _begin(core: Core, rotation: Rotation) -> bool:
    now = core.clock.now()
    number = rotation.runs + 1
    await _tell(core, rotation, "begin", "begun", {"run": number, "trigger": "schedule"})
    try:
        async with own_changes(core, "rotation.state", _path(rotation)) as fence:
            begun = await begin(core, rotation, "schedule", fence)
    except TargetAway as exc:
        await _put_off(core, rotation, exc, {"run": number})
        return False
    except (InvalidRequest, Refused, IntegrityFailure) as exc:
        _count(core, exc)
        run = msgspec.structs.replace(
            new_run(rotation, "schedule", now, version=0), step="undo", reason=_reason(exc)
        )
        await _end(core, msgspec.structs.replace(rotation, run=run, runs=number), run)
        return False
    assert begun.run is not None
    return True


async def _put_off(core: Core, rotation: Rotation, exc: TargetAway, detail: dict[str, Any]) -> None:
    """Begin some time later: an outage of an hour shall not fill the ledger."""
    await _tell(core, rotation, "begin", "failed", detail, exc.message)
    async with (
        own_changes(core, "rotation.state", _path(rotation)) as fence,
        core.authority.issue(fence) as change,
    ):
        await change.put(
            ROTATIONS,
            rotation.key,
            rotation.body(),
            expires_at=core.clock.now() + timedelta(seconds=_AWAY_SECONDS),
            expected_revision=rotation.revision,
        )


async def _step(core: Core, rotation: Rotation, run: Run) -> bool:
    """Do a step and store what comes next."""
    rotator = rotator_of(rotation.definition.rotator)
    try:
        plan = rotation.plan(core.keyring())
        setup = setup_of(core, rotation, run.number)
        detail = {"run": run.number, "trigger": run.trigger, "old_version": run.old_version}
        if run.step == "promote":
            masking = core.keyring().derived("audit-mask")
            detail["fields"] = mask(plan.fields, masking, frozenset())
        if not run.waiting_since:
            await _tell(core, rotation, run.step, "begun", detail)
        async with asyncio.timeout(STEP_SECONDS):
            made = await _outside(rotator, run, setup, plan)
        if made:
            plan = msgspec.structs.replace(plan, fields={**plan.fields, **made})
            rotation = rotation.with_plan(core.keyring(), plan)
        return await _stored(core, rotation, run, plan)
    except Awaited:
        now = core.clock.now()
        after = awaited(run, micros(now))
        look = _look_again((micros(now) - after.waiting_since) / 1_000_000)
        await _keep(core, rotation, after, now + timedelta(seconds=look))
        return False
    except (InvalidRequest, Refused, IntegrityFailure) as exc:
        _count(core, exc)
        after = failed(run, _reason(exc), final=True)
    except (Unavailable, TimeoutError) as exc:
        # What if that is our own database? Then this cannot be stored either, and is tried again later.
        after = failed(run, _reason(exc), final=False)
    await _tell(core, rotation, run.step, "failed", {"run": run.number, "next": after.step}, _why(after, run))
    wait = pause(after, _random.random()) if after.step == run.step else 0.0
    await _keep(core, rotation, after, core.clock.now() + timedelta(seconds=wait))
    return not wait


async def _outside(rotator: Rotator, run: Run, setup: Setup, plan: Plan) -> Mapping[str, Any]:
    """Do what a step does outside, and return fields that only the target could make."""
    if run.step == "create":
        return await rotator.create(setup, plan)
    if run.step == "verify":
        await rotator.verify(setup, plan)
    elif run.step == "retire":
        await rotator.retire(setup, plan)
    elif run.step == "undo":
        await rotator.undo(setup, plan)
    return {}


async def _stored(core: Core, rotation: Rotation, run: Run, plan: Plan) -> bool:
    """Store that a step was done."""
    if run.step == "promote":
        await _promote(core, rotation, run, plan)
        return True
    after = succeeded(run)
    if after is None:
        await _end(core, rotation, run, plan)
        return False
    await _keep(core, rotation, after, core.clock.now())
    await _tell(core, rotation, run.step, "done", {"run": run.number})
    return True


async def _promote(core: Core, rotation: Rotation, run: Run, plan: Plan) -> None:
    """Make the planned fields a new version of the secret, in the transaction that stores so."""
    mount, path = await store_of(core, rotation)
    fence = present_fence(core, [])
    async with core.authority.issue(fence) as change:
        await _lock(change.get, rotation)
        version, written = await write_secret(
            core, change.connection, fence, mount, path, lambda fields: promoted(plan, fields)
        )
        await agent_watches.reset(change.connection, announced_as(mount.uuid, path))
        now = core.clock.now()
        deadline = micros(now) + rotation.definition.confirm_within * 1_000_000
        after = succeeded(msgspec.structs.replace(run, new_version=version, deadline=deadline))
        assert after is not None
        await _put(change.put, rotation, after, now)
    detail = {"run": run.number, "version": version, "written": [*fence.written, *written]}
    await _tell(core, rotation, run.step, "done", detail)


async def _confirm(core: Core, rotation: Rotation, run: Run) -> bool:
    """Look whether everybody has confirmed who uses the secret."""
    definition = rotation.definition
    missing: list[str] = []
    if definition.confirm_within:
        missing = await unconfirmed(core, rotation, run.new_version)
    now = core.clock.now()
    after = waited(run, len(missing), micros(now), undo=definition.late == "undo")
    if after is None:
        waited_for = (micros(now) - run.deadline) / 1_000_000 + definition.confirm_within
        await _keep(core, rotation, run, now + timedelta(seconds=_look_again(waited_for)))
        return False
    outcome: Outcome = "late" if missing else "done"
    detail = {"run": run.number, "missing": missing[: agent_watches.NAMED], "next": after.step}
    await _tell(core, rotation, run.step, outcome, detail)
    await _keep(core, rotation, after, now)
    return True


async def _end(core: Core, rotation: Rotation, run: Run, plan: Plan | None = None) -> None:
    """End a run whose last step was done; the next one is when the schedule says."""
    now = core.clock.now()
    undone = plan if run.outcome == "undone" and run.promoted else None
    ended = msgspec.structs.replace(rotation, run=None, work="").planned(now)
    fence = present_fence(core, [])
    written: list[dict[str, Any]] = []
    mount, path = (None, "") if undone is None else await store_of(core, rotation)
    # Whoever dies after the commit cannot tell of it, and nobody comes back to a run that has ended.
    await _tell(core, rotation, "end", "begun", {"run": run.number, "outcome": run.outcome})
    async with core.authority.issue(fence) as change:
        await _lock(change.get, rotation)
        if undone is not None and mount is not None:
            kept: Plan = undone
            _, written = await write_secret(
                core, change.connection, fence, mount, path, lambda fields: reverted(kept, fields)
            )
        await change.put(
            ROTATIONS,
            rotation.key,
            ended.body(),
            expires_at=ended.begins_at(_random.random()),
            expected_revision=rotation.revision,
        )
        await agent_orders.forget(change.connection, rotation.uuid)
        await rotations.add_past(
            change.connection, core.keyring(), rotation.uuid, rotations.past_of(run, micros(now))
        )
    core.metrics.rotations.labels(run.outcome).inc()
    if run.outcome == "undone":
        _log.warning("the rotation of %s was undone: %s", rotation.key, run.reason)
    detail = {
        "run": run.number,
        "old_version": run.old_version,
        "new_version": run.new_version,
        "missing": run.missing,
        "written": [*fence.written, *written],
    }
    await _tell(core, rotation, "end", run.outcome, detail, run.reason)


async def _keep(core: Core, rotation: Rotation, run: Run, due: datetime) -> None:
    """Store how far a run is."""
    async with (
        own_changes(core, "rotation.state", _path(rotation)) as fence,
        core.authority.issue(fence) as change,
    ):
        await _put(change.put, rotation, run, due)


async def _put(put: Callable[..., Any], rotation: Rotation, run: Run, due: datetime) -> None:
    body = msgspec.structs.replace(rotation, run=run).body()
    await put(ROTATIONS, rotation.key, body, expires_at=due, expected_revision=rotation.revision)


async def _lock(get: Callable[..., Any], rotation: Rotation) -> None:
    """Check, before anything is written, that the rotation is still as it was read.

    Raises:
        Conflict: somebody else has moved it on.
    """
    row = await get(ROTATIONS, rotation.key)
    if row is None or row.revision != rotation.revision:
        raise Conflict("somebody else has moved the rotation on")


async def _tell(
    core: Core, rotation: Rotation, step: str, outcome: Outcome, detail: dict[str, Any], reason: str = ""
) -> None:
    await note(
        core,
        operation=f"rotation.{step}",
        path=_path(rotation),
        actor="system",
        outcome=outcome,
        reason=reason,
        detail=detail,
    )


def _look_again(waited_for: float) -> float:
    """Return in how many seconds to look again at what was waited for so many already."""
    return min(_LONGEST_LOOK, max(_SHORTEST_LOOK, waited_for / 4))


def _path(rotation: Rotation) -> str:
    return f"sys/rotation/config/{rotation.key}"


def _count(core: Core, exc: Exception) -> None:
    if isinstance(exc, IntegrityFailure):
        core.metrics.integrity_failures.labels(exc.table).inc()


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "the target did not answer in time"
    return exc.message if isinstance(exc, (InvalidRequest, Refused, Unavailable)) else str(exc)


def _why(after: Run, before: Run) -> str:
    return after.reason or before.reason
