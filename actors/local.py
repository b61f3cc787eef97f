"""The whole supervision tree in one process, without Ray: same classes, same rules, other wiring.

For small machines and for tests of what stands on actors. An actor that fails is replaced by a fresh
object; a process that dies takes all of them with it.
"""

from __future__ import annotations

import asyncio
import logging

from actors.handles.local import LocalHandles
from actors.restart import ChildSpec
from actors.supervisor import Child, GaveUp, Supervisor
from actors.tree import NODE_SUPERVISOR, SUPERVISOR, Branch, actor_name
from actors.wiring import USUAL, Actor, Pulses, Surroundings, build
from actors.workplace import LentPlace
from secrethub.background import end
from secrethub.clock import Clock, SystemClock
from secrethub.node import NodeSettings, read_cluster_key

_BACKOFF = 5.0
"""Seconds that a branch stays down after its supervisor gave up."""

_log = logging.getLogger(__name__)


class LocalTree:
    """The actors of a cluster that is one process."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        clock: Clock | None = None,
        pulses: Pulses = USUAL,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            settings: this node's.
            clock: the time; the system's by default.
            pulses: how often actors look by themselves.

        Raises:
            Misconfigured: the cluster key file cannot be used.
        """
        self.handles = LocalHandles(settings.node)
        self.workplace = LentPlace()
        """Of LeaseManager and RotationScheduler, which work with what the serving process lends them."""
        self._clock = clock or SystemClock()
        self._around = Surroundings(
            settings=settings,
            handles=self.handles,
            psk=read_cluster_key(settings),
            clock=self._clock,
            lent=self.workplace,
            pulses=pulses,
        )
        self._supervisors: list[Supervisor] = []
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"LocalTree(node={self._around.settings.node!r})"

    async def start(self) -> None:
        """Start every actor and return when all are there."""
        for branch in (SUPERVISOR, NODE_SUPERVISOR):
            node = self._around.settings.node if branch.per_node else None
            supervisor = Supervisor(
                branch.children,
                branch.rules,
                spawn=lambda spec, node=node: self._spawn(spec, node),  # type: ignore[misc]
                clock=self._clock,
                name=actor_name(branch.name, node),
            )
            self._supervisors.append(supervisor)
            self._tasks.append(asyncio.create_task(self._run(supervisor, branch), name=branch.name))
        for supervisor in self._supervisors:
            await supervisor.settled()

    async def stop(self) -> None:
        """Stop every actor, wiping keys. May be called again."""
        for task in reversed(self._tasks):
            await end(task)
        self._tasks = []

    def health(self) -> list[dict[str, object]]:
        """Tell how the supervisors are."""
        return [supervisor.health() for supervisor in self._supervisors]

    async def _run(self, supervisor: Supervisor, branch: Branch) -> None:
        while True:
            try:
                await supervisor.run()
            except GaveUp as exc:
                _log.error("%s gave up: %s", branch.name, exc)
                await asyncio.sleep(_BACKOFF)

    async def _spawn(self, spec: ChildSpec, node: str | None) -> Child:
        actor = build(spec.name, self._around)
        name = actor_name(spec.name, node)
        await self.handles.enter(name, actor)
        return _LocalChild(self.handles, name, actor)


class _LocalChild:
    """An actor of this process with the task that is its life."""

    def __init__(self, handles: LocalHandles, name: str, actor: Actor) -> None:
        self._handles = handles
        self._name = name
        self._actor = actor
        self._life = asyncio.create_task(actor.hold(), name=name)

    async def ended(self) -> bool:
        await asyncio.wait({self._life})
        if self._life.cancelled():
            return False
        error = self._life.exception()
        if error is not None:
            _log.error("%s failed", self._name, exc_info=error)
        return error is None

    async def stop(self) -> None:
        await self._handles.leave(self._name, self._actor)
        await end(self._life)
        await self._actor.close()
