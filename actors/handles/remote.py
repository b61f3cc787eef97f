"""Actors in other processes, reached through Ray by their names.

A looked-up actor is kept until a call shows that it is gone; then the name is looked up again, a
little later each time, until the call's time is over. Ray's own blocking calls run in daemon threads:
while the cluster's head is away they may block for minutes, which must stop neither the event loop
nor the end of the process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from actors.tree import (
    AUDIT_NOTARY,
    DISTRIBUTED_LOCK,
    KEY_HOLDER,
    NAMESPACE,
    SEAL_STATE,
    SESSION_DIRECTORY,
    actor_name,
    nodes_of,
)
from secrethub.errors import SecretHubError, Unavailable

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5

T = TypeVar("T")

_log = logging.getLogger(__name__)


class RayHandles:
    """The cluster's actors, in a process that has joined the Ray cluster."""

    def __init__(self, node: str) -> None:
        """Prepare; Ray is asked with the first call.

        Args:
            node: the name of this process's node.
        """
        self._node = node
        self._handles: dict[str, RayHandle] = {}

    def __repr__(self) -> str:
        return f"RayHandles(node={self._node!r})"

    def seal_state(self) -> RayHandle:
        """Return SealState."""
        return self._handle(SEAL_STATE)

    def key_holder(self, node: str | None = None) -> RayHandle:
        """Return the KeyHolder of ``node``, by default of this node."""
        return self._handle(actor_name(KEY_HOLDER, node or self._node))

    def notary(self) -> RayHandle:
        """Return AuditNotary."""
        return self._handle(AUDIT_NOTARY)

    def session_directory(self) -> RayHandle:
        """Return SessionDirectory."""
        return self._handle(SESSION_DIRECTORY)

    def lock(self) -> RayHandle:
        """Return DistributedLock."""
        return self._handle(DISTRIBUTED_LOCK)

    async def live_nodes(self) -> list[str]:
        """Return the nodes whose KeyHolder Ray knows.

        Raises:
            Unavailable: the head of the Ray cluster does not answer.
        """
        import ray

        try:
            async with asyncio.timeout(5):
                rows = await off_loop(lambda: ray.util.list_named_actors(all_namespaces=True))
        except (TimeoutError, ray.exceptions.RayError, RuntimeError) as exc:
            raise Unavailable("the head of the Ray cluster does not answer") from exc
        return nodes_of([row["name"] for row in rows if row["namespace"] == NAMESPACE], KEY_HOLDER)

    def _handle(self, name: str) -> RayHandle:
        return self._handles.setdefault(name, RayHandle(name))


class _Missing(Exception):
    """No actor bears the name now."""


class RayHandle:
    """One actor, found by its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._actor: Any = None
        self._search: asyncio.Task[Any] | None = None

    def __repr__(self) -> str:
        return f"RayHandle({self._name})"

    async def call(self, method: str, *args: object, timeout: float = 10.0) -> Any:
        """Call ``method`` and return its result; see :class:`actors.handles.protocol.Handle`."""
        from ray.exceptions import RayActorError, RayError, RayTaskError

        pause = _FIRST_PAUSE
        gone: Exception | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        actor = await self._find()
                        return await answer(getattr(actor, method).remote(*args))
                    except RayTaskError as exc:
                        raise self._ours(exc, method) from exc
                    except (RayActorError, _Missing) as exc:
                        gone = exc
                        self._actor = None
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        except TimeoutError as exc:
            what = "did not answer" if gone is None else "cannot be found or is gone"
            raise Unavailable(f"{self._name} {what} ({timeout:g} s)") from (gone or exc)
        except RayError as exc:
            raise Unavailable(f"{self._name} cannot be reached ({type(exc).__name__})") from exc

    def _ours(self, exc: Any, method: str) -> SecretHubError:
        if isinstance(exc.cause, SecretHubError):
            return exc.cause
        _log.error("%s failed in %s: %s", self._name, method, type(exc.cause).__name__)
        return Unavailable(f"{self._name} failed in {method}")

    async def _find(self) -> Any:
        if self._actor is None:
            if self._search is None or self._search.done():
                self._search = asyncio.create_task(off_loop(self._look_up), name=f"find-{self._name}")
            self._actor = await asyncio.shield(self._search)
        return self._actor

    def _look_up(self) -> Any:
        import ray

        try:
            return ray.get_actor(self._name, namespace=NAMESPACE)
        except ValueError as exc:
            raise _Missing(self._name) from exc


async def answer(reference: Any) -> Any:
    """Wait for what a Ray object reference stands for; giving up waiting does not cancel the call."""
    return await asyncio.wrap_future(reference.future())


async def off_loop(function: Callable[[], T]) -> T:
    """Run a blocking function in a daemon thread of its own and return its result."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as exc:  # noqa: BLE001 - it is raised where the result is awaited
            error = exc
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            _log.debug("the loop ended before %s answered", function)

    threading.Thread(target=work, name="secrethub-ray", daemon=True).start()
    return await done
