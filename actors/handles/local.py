"""Actors in this process: the same classes, called directly.

Calls behave as they do through Ray: our errors come out as themselves, anything else as
:class:`~secrethub.errors.Unavailable`, and a call to an actor that is being replaced waits for its
successor.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from actors.tree import (
    AUDIT_NOTARY,
    DISTRIBUTED_LOCK,
    KEY_HOLDER,
    SEAL_STATE,
    SESSION_DIRECTORY,
    actor_name,
    nodes_of,
)
from secrethub.errors import SecretHubError, Unavailable

_log = logging.getLogger(__name__)


class LocalHandles:
    """The actors of this process by name. Whoever starts and stops them enters them here."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._actors: dict[str, object] = {}
        self._calls: dict[int, set[asyncio.Task[Any]]] = {}
        self._changed = asyncio.Condition()

    def __repr__(self) -> str:
        return f"LocalHandles(node={self._node!r}, actors={sorted(self._actors)})"

    async def enter(self, name: str, actor: object) -> None:
        """Let ``actor`` answer to ``name``."""
        async with self._changed:
            self._actors[name] = actor
            self._changed.notify_all()

    async def leave(self, name: str, actor: object) -> None:
        """Let ``name`` be free again, and cancel what ``actor`` was doing, as its process's end would."""
        async with self._changed:
            if self._actors.get(name) is actor:
                del self._actors[name]
        for call in self._calls.pop(id(actor), set()):
            call.cancel()

    async def find(self, name: str) -> object:
        """Return the actor that bears ``name``, waiting until there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: name in self._actors)
            return self._actors[name]

    async def run(self, actor: object, method: str, args: tuple[object, ...]) -> Any:
        """Call ``method`` of ``actor``; cancelled when the actor leaves."""
        call = asyncio.create_task(getattr(actor, method)(*args))
        calls = self._calls.setdefault(id(actor), set())
        calls.add(call)
        call.add_done_callback(calls.discard)
        return await call

    def seal_state(self) -> LocalHandle:
        """Return SealState."""
        return LocalHandle(self, SEAL_STATE)

    def key_holder(self, node: str | None = None) -> LocalHandle:
        """Return the KeyHolder of ``node``, by default of this node."""
        return LocalHandle(self, actor_name(KEY_HOLDER, node or self._node))

    def notary(self) -> LocalHandle:
        """Return AuditNotary."""
        return LocalHandle(self, AUDIT_NOTARY)

    def session_directory(self) -> LocalHandle:
        """Return SessionDirectory."""
        return LocalHandle(self, SESSION_DIRECTORY)

    def lock(self) -> LocalHandle:
        """Return DistributedLock."""
        return LocalHandle(self, DISTRIBUTED_LOCK)

    async def live_nodes(self) -> list[str]:
        """Return the nodes that have a KeyHolder here."""
        return nodes_of(list(self._actors), KEY_HOLDER)


class LocalHandle:
    """One actor of this process."""

    def __init__(self, registry: LocalHandles, name: str) -> None:
        self._registry = registry
        self._name = name

    def __repr__(self) -> str:
        return f"LocalHandle({self._name})"

    async def call(self, method: str, *args: object, timeout: float = 10.0) -> Any:
        """Call ``method`` and return its result; see :class:`actors.handles.protocol.Handle`."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    actor = await self._registry.find(self._name)
                    try:
                        return await self._registry.run(actor, method, args)
                    except asyncio.CancelledError:
                        caller = asyncio.current_task()
                        if caller is None or caller.cancelling():
                            raise
                        # It was the actor that ended: its successor is asked.
        except SecretHubError:
            raise
        except TimeoutError as exc:
            raise Unavailable(f"{self._name} did not answer within {timeout:g} s") from exc
        except Exception as exc:
            _log.exception("%s failed in %s", self._name, method)
            raise Unavailable(f"{self._name} failed in {method}") from exc
