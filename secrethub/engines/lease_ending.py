"""Ending leases and undoing intents that a process has claimed, target by target.

The ledger says beforehand what is about to end, and then of each lease that it has; only after that its row
goes. A process that dies in between does it once more. A target that does not answer is left alone for a
while (``leases/retry.py``), the others are not.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from secrethub.audit.event import Outcome
from secrethub.audit.masking import canonical_json
from secrethub.engines.leasing import Held, is_leased
from secrethub.engines.mounts import Mount
from secrethub.engines.runtime import Core
from secrethub.errors import IntegrityFailure, Sealed, SecretHubError, Unavailable
from secrethub.leases.lease import Lease
from secrethub.leases.retry import USUAL, Breaker, Retries
from secrethub.storage import lease_ends, leases
from secrethub.storage.ledger import Note

BATCH = 512
"""Leases that are claimed at once."""

_ATTEMPT_SECONDS = 30.0
_TRIES = 20
_HELD_SECONDS = 0.1
"""Between two tries to claim what somebody else holds."""
_REASON = 300
_STATE = "leases"
_OPERATION = "lease.end"

_Work: TypeAlias = Callable[[Core, Mount, str, Sequence[Held]], Awaitable[Mapping[str, str]]]

_log = logging.getLogger(__name__)


@dataclass
class Targets:
    """What this process knows of targets that do not answer, each as ``<mount>/<target>``.

    Attributes:
        breakers: of those that did not answer last.
        retries: how often it tries to end a lease.
    """

    breakers: dict[str, Breaker] = field(default_factory=dict)
    retries: Retries = USUAL

    def resting(self, now: float) -> list[str]:
        """Return those that are left alone."""
        return [name for name, breaker in self.breakers.items() if breaker.rests(now)]


@dataclass(frozen=True, slots=True)
class _Group:
    """Leases in one state of one target."""

    name: str
    mount: Mount
    target: str
    work: _Work
    held: list[Held]


def targets_of(core: Core) -> Targets:
    """Return what this process knows of its targets."""
    found = core.engine_state.setdefault(_STATE, Targets())
    assert isinstance(found, Targets)
    return found


async def end_due(core: Core) -> int:
    """End what is due, and return how many were tried.

    Raises:
        SecretHubError: the database, the ledger or the keys are not there; the next call goes on.
    """
    core.keyring()
    resting = targets_of(core).resting(core.clock.monotonic())
    rows = await lease_ends.claim(core.database, BATCH, but=resting)
    if rows:
        await _settle(core, rows, "system")
    return len(rows)


async def end_these(core: Core, identifiers: Collection[str], actor: str) -> dict[str, str]:
    """End leases now, whether due or not, and return why some could not be, by their ids.

    Raises:
        SecretHubError: the database, the ledger or the keys are not there; what was ordered goes on.
    """
    failures: dict[str, str] = {}
    left = list(identifiers)
    for _ in range(_TRIES):
        rows = await lease_ends.claim(core.database, len(left), only=left)
        if rows:
            failures |= await _settle(core, rows, actor)
        claimed = {row["id"] for row in rows}
        # Whoever works at one just now holds its row for a moment, and then it may be there still.
        left = [identifier for identifier in left if identifier not in claimed]
        left = await lease_ends.claimable(core.database, left) if left else []
        if not left:
            return failures
        await asyncio.sleep(_HELD_SECONDS)
    return failures | dict.fromkeys(left, "somebody else is working at it")


async def end_leases_of(core: Core, mount: str) -> bool:
    """End the leases of a mount, and tell whether none is left; those that could not be are tried again.

    Raises:
        SecretHubError: the database, the ledger or the keys are not there.
    """
    while True:
        found = await lease_ends.left_of(core.database, mount, BATCH)
        if not found:
            return True
        rows = await lease_ends.claim(core.database, BATCH, only=found)
        if not rows or await _settle(core, rows, "system"):
            return False


async def _settle(core: Core, rows: Sequence[asyncpg.Record], actor: str) -> dict[str, str]:
    groups, failures = await _grouped(core, rows)
    attempts = {row["id"]: row["attempts"] for row in rows}
    done: dict[str, Lease] = {}
    for group, result in zip(
        groups, await asyncio.gather(*(_end(core, group, actor) for group in groups)), strict=True
    ):
        failures.update(result)
        done.update({one.lease.id: one.lease for one in group.held if one.lease.id not in result})
    await asyncio.gather(
        *(
            core.ledger.append(
                _note(
                    lease.id,
                    actor,
                    "done",
                    {
                        "state": lease.state,
                        "role": lease.role,
                        "owner": lease.owner[:16],
                        "written": [leases.ended(lease)],
                    },
                )
            )
            for lease in done.values()
        )
    )
    if done:
        await lease_ends.ended(core.database, list(done))
        core.metrics.leases_ended.inc(len(done))
    if failures:
        await _postpone(core, failures, attempts, actor)
    return failures


async def _grouped(core: Core, rows: Sequence[asyncpg.Record]) -> tuple[list[_Group], dict[str, str]]:
    """Return leases by their targets, and why some cannot even be tried."""
    keyring = core.keyring()
    groups: dict[tuple[str, str], _Group] = {}
    failures: dict[str, str] = {}
    for row in rows:
        try:
            lease = leases.verified(keyring, row)
            held = Held(lease=lease, data=leases.opened_data(keyring, lease))
        except IntegrityFailure as exc:
            core.metrics.integrity_failures.labels(exc.table).inc()
            failures[row["id"]] = str(exc)
            continue
        found = await core.mounts.by_uuid(lease.mount)
        mount, engine = found if found is not None else (None, None)
        if mount is None or not is_leased(engine):
            failures[lease.id] = "the mount that it was made by is gone"
            continue
        name = f"{lease.mount}/{lease.target}"
        work: _Work = engine.revoke if lease.state == "live" else engine.undo
        group = groups.setdefault((name, lease.state), _Group(name, mount, lease.target, work, []))
        group.held.append(held)
    return list(groups.values()), failures


async def _end(core: Core, group: _Group, actor: str) -> dict[str, str]:
    """End a group at its target, and return why some of it could not be."""
    targets = targets_of(core)
    breaker = targets.breakers.get(group.name, Breaker())
    tried, left = (group.held[:1], group.held[1:]) if breaker.probing else (group.held, [])
    reasons = {one.lease.id: "its target does not answer" for one in left}
    identifiers = [one.lease.id for one in tried]
    await core.ledger.append(
        _note(group.mount.path, actor, "begun", {"target": group.target, "leases": identifiers})
    )
    try:
        async with asyncio.timeout(_ATTEMPT_SECONDS):
            reasons |= await group.work(core, group.mount, group.target, tried)
    except (Unavailable, TimeoutError) as exc:
        targets.breakers[group.name] = breaker.failed(core.clock.monotonic())
        reason = exc.message if isinstance(exc, Unavailable) else "its target did not answer in time"
        return reasons | dict.fromkeys(identifiers, reason)
    except Sealed:
        raise
    except SecretHubError as exc:
        return reasons | dict.fromkeys(identifiers, str(exc))
    except Exception as exc:  # noqa: BLE001 - told below
        # One engine's mistake must not be the end of what others have leased out.
        _log.exception("leases of %s could not be ended", group.mount.path)
        return reasons | dict.fromkeys(identifiers, f"the engine failed: {type(exc).__name__}")
    targets.breakers.pop(group.name, None)
    return reasons


async def _postpone(core: Core, failures: Mapping[str, str], attempts: Mapping[str, int], actor: str) -> None:
    later = [
        (
            identifier,
            targets_of(core).retries.pause(attempts[identifier], random.random()),  # noqa: S311 - jitter
            reason[:_REASON],
        )
        for identifier, reason in failures.items()
    ]
    await lease_ends.postpone(core.database, later)
    core.metrics.leases_failed.inc(len(later))
    # The first failure of each and the last: an outage of an hour shall not fill the ledger.
    for identifier, rest, reason in later:
        if rest is None or attempts[identifier] == 1:
            await core.ledger.append(
                _note(identifier, actor, "failed" if rest is not None else "given up", {}, reason)
            )


def _note(path: str, actor: str, outcome: Outcome, detail: Mapping[str, Any], reason: str = "") -> Note:
    return Note(
        kind="event",
        request_id="",
        actor=actor,
        operation=_OPERATION,
        path=path,
        outcome=outcome,
        reason=reason,
        client="",
        door="",
        detail=canonical_json(dict(detail)),
    )
