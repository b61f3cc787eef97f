"""Supervisors that stand still are killed by the process that started their node; Ray makes them anew.

A supervisor that dies is restarted by Ray. One that is stopped or deadlocked is not, nobody above it asks:
its children go on, but no longer come back. Only processes of this machine are killed, so each node looks
after its own NodeSupervisor, and after the Supervisor if that is here. While the head of the Ray cluster is
away nothing could be made anew, so nothing is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
from pathlib import Path
from typing import Any

from actors.handles.remote import answer, off_loop
from actors.ray_child import Beats, stands_still
from actors.tree import NAMESPACE, NODE_SUPERVISOR, SUPERVISOR, actor_name

_HEAD_PATIENCE = 5.0
"""Seconds for the head of the Ray cluster to answer."""

_log = logging.getLogger(__name__)


class SupervisorWatch:
    """Watches the supervisors of a node."""

    def __init__(self, node: str, beats: Beats = Beats()) -> None:  # noqa: B008 - it has no state
        """Prepare.

        Args:
            node: its name.
            beats: how often they are asked.
        """
        self._watched = (
            _Watched(actor_name(NODE_SUPERVISOR.name, node), node, beats),
            _Watched(SUPERVISOR.name, node, beats),
        )

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for one in self._watched:
                group.create_task(one.run(), name=f"watch-{one.name}")


class _Watched:
    """A supervisor, wherever it is."""

    def __init__(self, name: str, node: str, beats: Beats) -> None:
        self.name = name
        self._node = node
        self._beats = beats
        self._actor: Any = None
        self._pid = 0
        """Its process, if that is on this machine."""

    async def run(self) -> None:
        while True:
            await stands_still(self._ask, self._beats)
            if self._pid and await _head_answers():
                self._kill()
            self._actor = None

    async def _ask(self) -> None:
        """Ask for its health.

        Raises:
            TimeoutError: cancelled from outside, when there is no answer.
        """
        from ray.exceptions import RayError

        try:
            if self._actor is None:
                self._actor = await off_loop(self._look_up)
            told = await answer(self._actor.health.remote())
        except (RayError, ValueError) as exc:
            # It is gone or being restarted, which is Ray's business.
            _log.debug("%s was not asked: %s", self.name, type(exc).__name__)
            self._actor = None
            self._pid = 0
        else:
            self._pid = int(told["pid"]) if told["node"] == self._node else 0

    def _look_up(self) -> Any:
        import ray

        return ray.get_actor(self.name, namespace=NAMESPACE)

    def _kill(self) -> None:
        """Kill the process that answered last, if it still is an actor of Ray's."""
        pid, self._pid = self._pid, 0
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                _log.error("%s does not answer and is killed", self.name)
                os.kill(pid, signal.SIGKILL)


async def _head_answers() -> bool:
    import ray

    try:
        async with asyncio.timeout(_HEAD_PATIENCE):
            await off_loop(functools.partial(ray.util.list_named_actors, all_namespaces=True))
    except (TimeoutError, ray.exceptions.RayError, RuntimeError):
        return False
    return True
