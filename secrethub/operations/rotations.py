"""Looking again and again for rotations that are due, and carrying them on.

Every node's RotationScheduler does; whoever has the claim of a rotation works at it, and of those who come
by meanwhile nobody waits. Nothing is kept in memory: what is next is asked of an index. While the
cluster is sealed or the database is away it waits, and then goes on with the step that each run is at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from secrethub.background import end
from secrethub.engines.runtime import Core
from secrethub.errors import Conflict, DecryptionFailed, IntegrityFailure, SecretHubError, Stale
from secrethub.ids import new_uuid
from secrethub.operations.rotation_runs import STEP_SECONDS, advance
from secrethub.storage import locks, rotations
from secrethub.storage.authority import ROTATIONS

_LONGEST_WAIT = 0.25
"""Seconds between two looks: somebody may have asked for a rotation by way of another process."""
_SHORTEST_WAIT = 0.02
_TROUBLE_SECONDS = 1.0
_TOGETHER = 16
_CLAIM_SECONDS = 2 * STEP_SECONDS
_SKIPPED_SECONDS = 60.0
"""For which a rotation is left alone whose row is not authentic."""

_log = logging.getLogger(__name__)


async def rotate_secrets(core: Core) -> None:
    """Carry rotations on until cancelled."""
    await Rotations(core).run()


class Rotations:
    """The rotations that one process works at."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._owner = new_uuid()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._skipped: dict[str, float] = {}

    async def run(self) -> None:
        """Carry rotations on until cancelled; what is under way then is cut off, as by a crash."""
        try:
            while True:
                await self._core.opened.wait()
                try:
                    wait = await self._look()
                except SecretHubError as exc:
                    _log.warning("rotations cannot be carried on now: %s", exc.code)
                    wait = _TROUBLE_SECONDS
                await asyncio.sleep(wait)
        finally:
            await end(*self._tasks.values())

    async def _look(self) -> float:
        """Begin to work at what is due; return for how long to wait."""
        now = time.monotonic()
        self._skipped = {key: until for key, until in self._skipped.items() if until > now}
        room = _TOGETHER - len(self._tasks)
        async with self._core.database.read() as connection:
            keys = await rotations.due(connection, _TOGETHER + len(self._skipped))
            due = await rotations.next_due(connection)
        for key in [key for key in keys if key not in self._tasks and key not in self._skipped][:room]:
            task = asyncio.create_task(self._work(key), name=f"rotation-{key}")
            self._tasks[key] = task
        if due is None or due <= 0:
            return _LONGEST_WAIT
        return min(max(due, _SHORTEST_WAIT), _LONGEST_WAIT)

    async def _work(self, key: str) -> None:
        """Do whatever is due at one rotation."""
        try:
            row = await self._core.authority.fetch(ROTATIONS, key)
            if row is None:
                return
            await self._claimed(key, rotations.claim_of(row.body["uuid"]))
        except (IntegrityFailure, DecryptionFailed) as exc:
            table = exc.table if isinstance(exc, IntegrityFailure) else ROTATIONS.name
            self._core.metrics.integrity_failures.labels(table).inc()
            self._skipped[key] = time.monotonic() + _SKIPPED_SECONDS
            _log.error("the rotation of %s cannot be carried on: %s", key, exc)
        except Conflict:
            pass  # somebody else moved it on, or changed what is configured: it is looked at again
        except Stale as exc:
            with contextlib.suppress(SecretHubError):
                await self._core.catch_up(exc)
        except SecretHubError as exc:
            _log.warning("the rotation of %s waits: %s", key, exc.code)
            await asyncio.sleep(_TROUBLE_SECONDS)
        finally:
            self._tasks.pop(key, None)

    async def _claimed(self, key: str, name: str) -> None:
        database = self._core.database
        more, claim = True, None
        try:
            while more:
                claim = await locks.acquire(database, name, self._owner, _CLAIM_SECONDS)
                if claim is None:
                    # Theirs ends by itself if they are gone.
                    await asyncio.sleep(_TROUBLE_SECONDS)
                    return
                more = await advance(self._core, key)
        finally:
            if claim is not None:
                with contextlib.suppress(SecretHubError):
                    await locks.release(database, claim)
