"""Where an actor works that needs what a gateway has: the keyring, the ledger, the mounts and engines.

In a process of its own it has all that for itself, the keyring from this node's key-holder as gateways get
it (``security.md`` 1–2). In a single process it works with what that process has already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from actors.handles.protocol import Handles
from actors.handles.seal import SealClient
from secrethub.background import end
from secrethub.clock import Clock
from secrethub.node import NodeSettings

if TYPE_CHECKING:
    from secrethub.engines.runtime import Core

_CONNECTIONS = 6
"""To PostgreSQL: several of a batch's statements and entries at once, and no more than that."""

Work: TypeAlias = Callable[["Core"], Coroutine[Any, Any, None]]
"""Goes on until it is cancelled, and waits by itself while there are no keys."""


class Workplace(Protocol):
    """Where work is done."""

    async def run(self, *works: Work, upkeep: Sequence[Work] = ()) -> None:
        """Do ``works`` until cancelled, with whatever they need as long as that is there.

        Args:
            works: what is done, side by side.
            upkeep: done beside it where no serving process does so.

        Raises:
            ExceptionGroup: what they raised: defects.
        """
        ...


class OwnPlace:
    """A process with nothing but this work."""

    def __init__(
        self, *, settings: NodeSettings, handles: Handles, psk: bytes, clock: Clock, name: str
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            settings: this node's.
            handles: the way to the key-holder.
            psk: the cluster's pre-shared key.
            clock: the time.
            name: what the process is called in the ledger and in metrics.
        """
        connections = min(_CONNECTIONS, settings.database_pool)
        self._settings = msgspec.structs.replace(settings, database_pool=connections)
        self._seal = SealClient(handles, psk)
        self._clock = clock
        self._name = name

    def __repr__(self) -> str:
        return f"OwnPlace(name={self._name!r})"

    async def run(self, *works: Work, upkeep: Sequence[Work] = ()) -> None:
        """Open everything, do all of that, and close everything."""
        # Imported here, since every actor's process has this module.
        from secrethub.engines.kinds import engines
        from secrethub.engines.runtime import Core
        from secrethub.operations.key_sync import KeySync
        from secrethub.operations.own_metrics import OwnMetrics

        core = Core(
            settings=self._settings,
            clock=self._clock,
            seal=self._seal,
            engines=engines(),
            process=self._name,
        )
        keys, metrics = KeySync(core, self._name), OwnMetrics(core, self._name)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(core.stop)
            core.start()
            stack.push_async_callback(keys.stop)
            await keys.start()
            stack.push_async_callback(metrics.stop)
            await metrics.start()
            await _together(core, (*works, *upkeep))


class LentPlace:
    """What a serving process lends to the actors beside it."""

    def __init__(self) -> None:
        self._core: Core | None = None
        self._changed = asyncio.Condition()
        self._working: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"LentPlace(lent={self._core is not None})"

    async def lend(self, core: Core) -> None:
        """Let actors work with a process's core."""
        async with self._changed:
            self._core = core
            self._changed.notify_all()

    async def take_back(self) -> None:
        """End the work; when this returns nothing of it goes on. May be called again."""
        self._core = None
        await end(*self._working)

    async def run(self, *works: Work, upkeep: Sequence[Work] = ()) -> None:  # noqa: ARG002 - the lender does it
        """Do ``works`` whenever there is a core."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._core is not None)
                core = self._core
            assert core is not None
            task = asyncio.create_task(_together(core, works), name="lent-work")
            self._working.add(task)
            try:
                await asyncio.wait({task})
            finally:
                self._working.discard(task)
                await end(task)
            if not task.cancelled():
                task.result()


async def _together(core: Core, works: Sequence[Work]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(work(core), name=getattr(work, "__name__", "work"))


async def until_done(done: asyncio.Event, work: Awaitable[None]) -> None:
    """Do ``work`` until ``done`` is set.

    Raises:
        Exception: what the work raised.
    """
    task = asyncio.ensure_future(work)
    told = asyncio.ensure_future(done.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(told, task)
    if not task.cancelled():
        task.result()
