"""A supervisor: starts children, watches them, and does what the restart rules decide.

The same class supervises Ray actors and plain objects in one process; what a child is, and how one
is made, is the ``spawn`` function's business. The rules are in :mod:`actors.restart`.

When the rules say to give up, every child is stopped and :meth:`Supervisor.run` raises
:class:`GaveUp`; whoever runs the supervisor ends its process, so that a fresh one begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeAlias

from actors.restart import ChildSpec, GiveUp, History, Leave, Rules, decide, start_order
from secrethub.background import end
from secrethub.clock import Clock

_log = logging.getLogger(__name__)


class Child(Protocol):
    """A running child."""

    async def ended(self) -> bool:
        """Wait for its end: True when it ended on purpose, False when it crashed."""
        ...

    async def stop(self) -> None:
        """End it, whatever state it is in, and free its name. May be called again."""
        ...


Spawn: TypeAlias = Callable[[ChildSpec], Awaitable[Child]]
"""Makes a child and returns when it works."""


class GaveUp(Exception):
    """Too many restarts: the supervisor has stopped its children and ends."""


class Supervisor:
    """Keeps the children of one branch running.

    Promise: while :meth:`run` runs, a child that ended is handled before the next one, children are
    stopped in the reverse of their start order, and when it returns or raises no child is left.
    """

    def __init__(
        self,
        children: Iterable[ChildSpec],
        rules: Rules,
        *,
        spawn: Spawn,
        clock: Clock,
        name: str = "supervisor",
    ) -> None:
        """Prepare; nothing is started before :meth:`run`.

        Args:
            children: whom to start.
            rules: what to go by.
            spawn: makes a child.
            clock: its monotonic time counts restarts.
            name: for logs and ``repr``.
        """
        self._children = {child.name: child for child in start_order(children)}
        self._rules = rules
        self._spawn = spawn
        self._clock = clock
        self._name = name
        self._history: History = ()
        self._running: dict[str, tuple[Child, asyncio.Task[None]]] = {}
        self._restarts = dict.fromkeys(self._children, -1)
        self._ends: asyncio.Queue[tuple[ChildSpec, Child, bool]] = asyncio.Queue()
        self._settled = asyncio.Event()

    def __repr__(self) -> str:
        return f"Supervisor({self._name}: {len(self._running)} of {len(self._children)} running)"

    async def settled(self) -> None:
        """Wait until every child is running, or stays down by its own rules."""
        await self._settled.wait()

    def health(self) -> dict[str, object]:
        """Tell which children run and how often each was restarted."""
        return {
            "name": self._name,
            "settled": self._settled.is_set(),
            "children": {
                name: {"running": name in self._running, "restarts": max(count, 0)}
                for name, count in self._restarts.items()
            },
        }

    async def run(self) -> None:
        """Start the children and keep them running until cancelled.

        Raises:
            GaveUp: more restarts than the rules tolerate.
        """
        self._history = ()
        try:
            await self._start(self._children)
            while True:
                self._settled.set()
                spec, child, normal = await self._ends.get()
                current = self._running.get(spec.name)
                if current is None or current[0] is not child:
                    continue  # it was stopped with a sibling meanwhile
                self._settled.clear()
                _log.warning("%s: %s %s", self._name, spec.name, "ended" if normal else "crashed")
                await self._stop((spec.name,))
                await self._start(await self._follow(spec, normal=normal))
        finally:
            self._settled.clear()
            await self._stop(reversed(self._children))

    async def _start(self, names: Iterable[str]) -> None:
        """Start children in order. One that does not start is a crash like any other."""
        waiting = [self._children[name] for name in names]
        while waiting:
            spec = waiting.pop(0)
            try:
                child = await self._spawn(spec)
            except Exception:  # noqa: BLE001 - whatever the reason, the rules decide
                _log.exception("%s: %s did not start", self._name, spec.name)
                again = await self._follow(spec, normal=False)
                both = {*again, *(other.name for other in waiting)}
                waiting = [other for other in self._children.values() if other.name in both]
                continue
            watch = asyncio.create_task(self._watch(spec, child), name=f"watch-{spec.name}")
            self._running[spec.name] = (child, watch)
            self._restarts[spec.name] += 1

    async def _follow(self, spec: ChildSpec, *, normal: bool) -> tuple[str, ...]:
        """Ask the rules, stop whom they name, and return whom to start."""
        decision = decide(
            self._rules,
            self._children.values(),
            spec,
            normal=normal,
            history=self._history,
            now=self._clock.monotonic(),
        )
        if isinstance(decision, Leave):
            if spec.restart == "temporary":
                del self._children[spec.name]
            return ()
        if isinstance(decision, GiveUp):
            raise GaveUp(decision.reason)
        self._history = decision.history
        await self._stop(decision.stop)
        for name in decision.stop:
            if self._children[name].restart == "temporary":
                del self._children[name]
        return decision.start

    async def _stop(self, names: Iterable[str]) -> None:
        for name in tuple(names):
            if name not in self._running:
                continue
            child, watch = self._running.pop(name)
            await end(watch)
            try:
                await child.stop()
            except Exception:  # noqa: BLE001 - the siblings must be stopped all the same
                _log.exception("%s: %s did not stop", self._name, name)

    async def _watch(self, spec: ChildSpec, child: Child) -> None:
        try:
            normal = await child.ended()
        except Exception:  # noqa: BLE001 - a child that cannot be watched counts as crashed
            _log.exception("%s: watching %s failed", self._name, spec.name)
            normal = False
        await self._ends.put((spec, child, normal))
