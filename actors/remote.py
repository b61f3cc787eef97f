"""The one file that turns plain classes into Ray actors.

A child is created with ``max_restarts=0`` and a name; its supervisor sees at once that it ended, and soon
that it hangs (``actors/ray_child.py``). Supervisors are detached and named, and Ray restarts them; their
children die with them.

Constructors take no arguments: Ray keeps those in its own store. Each process reads its node's
settings itself. ``runtime_env`` stays empty for the same reason.

Two facts about Ray that this rests on: a dead named actor keeps its name until it is killed
explicitly, as long as anybody has a handle of it; and a process that ends with ``os._exit`` is
restarted, while one that leaves with ``exit_actor`` is not.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from actors import (
    audit_notary,
    distributed_lock,
    key_holder,
    lease_manager,
    rotation_scheduler,
    seal_state,
    session_directory,
    supervisor,
)
from actors.handles.remote import RayHandles, answer, off_loop
from actors.ray_child import RayChild, kill
from actors.restart import ChildSpec
from actors.tree import (
    AUDIT_NOTARY,
    DISTRIBUTED_LOCK,
    KEY_HOLDER,
    LEASE_MANAGER,
    NAMESPACE,
    NODE_SUPERVISOR,
    ROTATION_SCHEDULER,
    SEAL_STATE,
    SESSION_DIRECTORY,
    SUPERVISOR,
    Branch,
    actor_name,
)
from actors.wiring import PARTS, Parts, Surroundings
from secrethub.clock import SystemClock
from secrethub.errors import Unavailable
from secrethub.node import read_cluster_key, read_node_file
from secrethub.sensitive import protect_process

_BACKOFF = 5.0
"""Seconds between giving up and leaving: a branch that cannot work is not restarted in a tight loop."""
_ANSWER = 20.0
"""Seconds within which a fresh actor must answer for the first time."""
_GAVE_UP = 70

_log = logging.getLogger(__name__)


def _parts(kind: str) -> Parts:
    protect_process()
    settings = read_node_file()
    around = Surroundings(
        settings=settings,
        handles=RayHandles(settings.node),
        psk=read_cluster_key(settings),
        clock=SystemClock(),
    )
    return PARTS[kind](around)


class SealState(seal_state.SealState):
    """SealState in a process of its own."""

    def __init__(self) -> None:
        super().__init__(**_parts(SEAL_STATE))


class KeyHolder(key_holder.KeyHolder):
    """KeyHolder in a process of its own."""

    def __init__(self) -> None:
        super().__init__(**_parts(KEY_HOLDER))


class DistributedLock(distributed_lock.DistributedLock):
    """DistributedLock in a process of its own."""

    def __init__(self) -> None:
        super().__init__(**_parts(DISTRIBUTED_LOCK))


class SessionDirectory(session_directory.SessionDirectory):
    """SessionDirectory in a process of its own."""

    def __init__(self) -> None:
        super().__init__(**_parts(SESSION_DIRECTORY))


class AuditNotary(audit_notary.AuditNotary):
    """AuditNotary in a process of its own."""

    def __init__(self) -> None:
        super().__init__(**_parts(AUDIT_NOTARY))


class LeaseManager(lease_manager.LeaseManager):
    """LeaseManager in a process of its own."""

    def __init__(self) -> None:
        super().__init__(**_parts(LEASE_MANAGER))


class RotationScheduler(rotation_scheduler.RotationScheduler):
    """RotationScheduler in a process of its own."""

    def __init__(self) -> None:
        super().__init__(**_parts(ROTATION_SCHEDULER))


_CHILDREN: Mapping[str, type] = MappingProxyType(
    {
        SEAL_STATE: SealState,
        KEY_HOLDER: KeyHolder,
        DISTRIBUTED_LOCK: DistributedLock,
        SESSION_DIRECTORY: SessionDirectory,
        AUDIT_NOTARY: AuditNotary,
        LEASE_MANAGER: LeaseManager,
        ROTATION_SCHEDULER: RotationScheduler,
    }
)


class _Supervising:
    """A branch of the tree in a process of its own."""

    branch: ClassVar[Branch]

    async def __init__(self) -> None:  # type: ignore[misc]  # Ray awaits it, inside the actor's loop
        protect_process()
        self._node = read_node_file().node
        node = self._node if self.branch.per_node else None
        self._supervisor = supervisor.Supervisor(
            self.branch.children,
            self.branch.rules,
            spawn=functools.partial(_spawn, node),
            clock=SystemClock(),
            name=actor_name(self.branch.name, node),
        )
        self._life = asyncio.create_task(self._run(), name=self.branch.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(node={self._node})"

    async def settled(self) -> None:
        """Wait until every child works."""
        await self._supervisor.settled()

    async def whereabouts(self) -> str:
        """Return Ray's id of the node that this process is on."""
        return _ray_node()

    async def health(self) -> dict[str, object]:
        """Tell how the children are."""
        return {**self._supervisor.health(), "node": self._node, "pid": os.getpid()}

    async def _run(self) -> None:
        try:
            await self._supervisor.run()
        except supervisor.GaveUp as exc:
            _log.error("%r gave up: %s", self, exc)
        except Exception:  # noqa: BLE001 - whatever it was, a fresh process is the remedy
            _log.exception("%r failed", self)
        await asyncio.sleep(_BACKOFF)
        os._exit(_GAVE_UP)


class Supervisor(_Supervising):
    """Supervisor of the cluster's singletons."""

    branch = SUPERVISOR


class NodeSupervisor(_Supervising):
    """Supervisor of what every node has one of."""

    branch = NODE_SUPERVISOR


async def start_tree(*, timeout: float = 90.0) -> None:
    """Make sure that the cluster's Supervisor and its children run. Any node may call it, at any time.

    Raises:
        Unavailable: they do not work within ``timeout`` seconds.
    """
    await _start(Supervisor, actor_name(SUPERVISOR.name), None, timeout)


async def start_node(node: str, *, timeout: float = 90.0) -> None:
    """Make sure that this node's NodeSupervisor and its children run here.

    Called by the node's own ``secrethub server``, which has joined Ray through this node. A supervisor
    that an earlier life of the node left behind, pinned to a Ray node that is gone, is replaced.

    Raises:
        Unavailable: they do not work within ``timeout`` seconds.
    """
    await _start(NodeSupervisor, actor_name(NODE_SUPERVISOR.name, node), _ray_node(), timeout)


async def _start(cls: type, name: str, pinned: str | None, timeout: float) -> None:
    from ray.exceptions import ActorDiedError, RayError

    options = {"lifetime": "detached", "max_restarts": -1, "get_if_exists": True}
    try:
        async with asyncio.timeout(timeout):
            while True:
                actor = await off_loop(lambda: _create(cls, name, pinned, options))
                try:
                    async with asyncio.timeout(_ANSWER):
                        where = await answer(actor.whereabouts.remote())
                    if pinned is None or where == pinned:
                        await answer(actor.settled.remote())
                        return
                    _log.warning("%s is of an earlier life of its node and is replaced", name)
                except TimeoutError:
                    if pinned is None:
                        continue  # Ray is restarting it, on whichever node it likes
                    _log.warning("%s does not answer and is replaced", name)
                except ActorDiedError:
                    _log.warning("%s has ended for good and is replaced", name)
                except RayError as exc:
                    _log.info("%s is being restarted: %s", name, type(exc).__name__)
                    await asyncio.sleep(0.1)
                    continue
                await off_loop(functools.partial(kill, actor))
    except TimeoutError as exc:
        raise Unavailable(f"{name} did not start within {timeout:g} s") from exc


async def _spawn(node: str | None, spec: ChildSpec) -> RayChild:
    """Create a child on this process's own node and return when it answers."""
    here = _ray_node()
    name = actor_name(spec.name, node)
    actor = await off_loop(lambda: _create(_CHILDREN[spec.name], name, here, {"max_restarts": 0}))
    child = RayChild(name, actor)
    try:
        await child.answers(_ANSWER)
    except BaseException:
        await child.stop()
        raise
    return child


def _create(cls: type, name: str, pinned: str | None, options: Mapping[str, Any]) -> Any:
    """Create a named actor; what is left of a dead one of that name is cleared away. Blocks."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node_id=pinned, soft=False) if pinned else None
    deadline = time.monotonic() + _ANSWER
    while True:
        try:
            return (
                _remote(cls)
                .options(name=name, namespace=NAMESPACE, num_cpus=0, scheduling_strategy=where, **options)
                .remote()
            )
        except ValueError as exc:  # the name is taken
            if time.monotonic() > deadline:
                raise Unavailable(f"the name {name} stays taken") from exc
            _clear(name)
            time.sleep(0.02)


@functools.cache
def _remote(cls: type) -> Any:
    import ray

    return ray.remote(cls)


def _clear(name: str) -> None:
    import ray

    try:
        actor = ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return
    kill(actor)


def _ray_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
