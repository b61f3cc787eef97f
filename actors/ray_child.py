"""A child of a supervisor in another process of the same machine: noticed when it dies, and when it hangs.

A process that dies ends the call of ``hold()`` at once. One that stands still (stopped, deadlocked, in an
endless loop) ends nothing, so it is asked for its health now and then. Whoever does not answer twice in a row
is killed: a process can be replaced, and whatever it did can be repeated. Twice, because of a machine that
was frozen for a while the first deadline has passed by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from actors.handles.remote import answer, off_loop

_MISSED = 2
"""Questions in a row without an answer, after which it hangs."""
_GONE = 5.0
"""Seconds that an actor's end is waited for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beats:
    """How often somebody is asked whether he stands still.

    Attributes:
        pause: seconds between an answer and the next question.
        deadline: seconds for an answer. A loop that is kept busy for so long serves nobody either.
    """

    pause: float = 5.0
    deadline: float = 10.0


async def stands_still(ask: Callable[[], Awaitable[object]], beats: Beats) -> None:
    """Return when a question has had no answer twice in a row; whoever is gone is not meant.

    Args:
        ask: asks once, and returns with the answer.
        beats: how often.
    """
    missed = 0
    while missed < _MISSED:
        await asyncio.sleep(beats.pause)
        try:
            async with asyncio.timeout(beats.deadline):
                await ask()
        except TimeoutError:
            missed += 1
        else:
            missed = 0


class RayChild:
    """A child, watched through its ``hold()`` and its health."""

    def __init__(self, name: str, actor: Any) -> None:
        """Watch an actor.

        Args:
            name: for the log.
            actor: Ray's handle of it.
        """
        self._name = name
        self._actor = actor
        self._hold = actor.hold.remote()
        self._pid = 0

    async def answers(self, seconds: float) -> None:
        """Wait for a first answer.

        Raises:
            TimeoutError: there is none within ``seconds``.
            ray.exceptions.RayError: it died.
        """
        async with asyncio.timeout(seconds):
            self._pid = int((await answer(self._actor.health.remote()))["pid"])

    async def ended(self) -> bool:
        """Wait for its end, bringing it about once it hangs; True when it ended on purpose."""
        beats = asyncio.create_task(self._beats(), name=f"beats-{self._name}")
        try:
            return await self._held()
        finally:
            beats.cancel()

    async def stop(self) -> None:
        """End it, also when it hangs. May be called again."""
        from ray.exceptions import RayError

        await off_loop(functools.partial(kill, self._actor))
        try:
            async with asyncio.timeout(_GONE):
                await answer(self._hold)
        except TimeoutError:
            self._end()
        except RayError as exc:
            _log.debug("%s ended: %s", self._name, type(exc).__name__)

    async def _held(self) -> bool:
        from ray.exceptions import RayError, RayTaskError

        try:
            await answer(self._hold)
        except RayTaskError as exc:
            _log.error("%s failed: %s", self._name, type(exc.cause).__name__)
            return False
        except RayError as exc:
            _log.warning("%s is gone: %s", self._name, type(exc).__name__)
            return False
        return True

    async def _beats(self) -> None:
        await stands_still(self._ask, Beats())
        _log.error("%s does not answer and is killed", self._name)
        self._end()

    async def _ask(self) -> None:
        from ray.exceptions import RayError

        try:
            await answer(self._actor.health.remote())
        except RayError as exc:
            # An end shows in ``hold()``; anything else is no sign that it stands still.
            _log.debug("%s was not asked: %s", self._name, type(exc).__name__)

    def _end(self) -> None:
        """Kill its process: Ray asks it to end itself, which one that stands still does not."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)


def kill(actor: Any) -> None:
    """Have Ray end an actor for good. Blocks."""
    import ray

    ray.kill(actor, no_restart=True)
