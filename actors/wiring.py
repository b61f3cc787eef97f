"""How each actor is built in the process where it will live, from that node's own settings.

One table for both ways of running actors: as Ray actors (:mod:`actors.remote`) and as plain objects in
one process (:mod:`actors.local`). Nothing of it travels between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from actors.audit_notary import AuditNotary
from actors.distributed_lock import DistributedLock
from actors.handles.protocol import Handles
from actors.key_holder import KeyHolder
from actors.lease_manager import LeaseManager
from actors.node_witness import NodeWitness
from actors.rotation_scheduler import RotationScheduler
from actors.seal_state import SealState
from actors.session_directory import SessionDirectory
from actors.tree import (
    AUDIT_NOTARY,
    DISTRIBUTED_LOCK,
    KEY_HOLDER,
    LEASE_MANAGER,
    ROTATION_SCHEDULER,
    SEAL_STATE,
    SESSION_DIRECTORY,
)
from actors.workplace import OwnPlace, Workplace
from secrethub.clock import Clock
from secrethub.errors import Misconfigured
from secrethub.node import NodeSettings
from secrethub.seal.key_services import KeyServices, NoKeyServices
from secrethub.storage.database import Database

_CONNECTIONS = 3
"""Connections that an actor keeps to PostgreSQL at most; none of them is on a request's path."""


class Actor(Protocol):
    """What every actor offers its supervisor."""

    async def hold(self) -> None:
        """Live: return only when closed or to be replaced by a fresh one."""
        ...

    async def health(self) -> dict[str, object]:
        """Tell who this is and what it is doing; never a secret."""
        ...

    async def close(self) -> None:
        """End, wiping keys. May be called again."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulses:
    """Seconds between the looks that actors take by themselves."""

    seal_state: float = 2.0
    """At the database, for what another incarnation has changed."""
    key_holder: float = 2.0
    """At the database, whether the cluster was sealed or its keys are others; nobody waits for that."""
    notary: float = 0.8
    """At the streams: checkpoints are at most a second apart."""


USUAL = Pulses()
"""What servers do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a process gives the actors in it.

    Attributes:
        settings: the node's.
        handles: where the other actors are found.
        psk: the cluster's pre-shared key.
        clock: the time.
        lent: where actors work that need what a serving process has; None for a place of their own.
        pulses: how often actors look by themselves.
    """

    settings: NodeSettings
    handles: Handles
    psk: bytes = field(repr=False)
    clock: Clock
    lent: Workplace | None = None
    pulses: Pulses = USUAL

    def database(self) -> Database:
        """Return an actor's own connections to the cluster's database."""
        return Database(self.settings.database_url, size=_CONNECTIONS)

    def workplace(self, name: str) -> Workplace:
        """Return where an actor works that needs what a serving process has."""
        return self.lent or OwnPlace(
            settings=self.settings, handles=self.handles, psk=self.psk, clock=self.clock, name=name
        )

    def key_services(self) -> KeyServices:
        """Return the keys of key services in the node's settings.

        Whatever opens them is found by the name that the node file gives, since it is above this folder.

        Raises:
            Misconfigured: there is nothing of that name.
        """
        opener = self.settings.key_service_opener
        if opener is None:
            return NoKeyServices()
        module, _, name = opener.partition(":")
        try:
            services: KeyServices = getattr(import_module(module), name)(self.settings.key_services)
        except (ImportError, AttributeError) as exc:
            raise Misconfigured(f"key_service_opener: {opener} cannot be used") from exc
        return services


Parts: TypeAlias = dict[str, Any]


def _seal_state(around: Surroundings) -> Parts:
    return {
        "node": around.settings.node,
        "database": around.database(),
        "handles": around.handles,
        "psk": around.psk,
        "clock": around.clock,
        "dev": around.settings.dev,
        "root_key_type": around.settings.root_key_type,
        "services": around.key_services(),
        "witness": NodeWitness(Path(around.settings.state_dir)),
        "pulse": around.pulses.seal_state,
    }


def _key_holder(around: Surroundings) -> Parts:
    return {
        "node": around.settings.node,
        "database": around.database(),
        "handles": around.handles,
        "psk": around.psk,
        "witness": NodeWitness(Path(around.settings.state_dir)),
        "pulse": around.pulses.key_holder,
    }


def _audit_notary(around: Surroundings) -> Parts:
    return {
        "node": around.settings.node,
        "database": around.database(),
        "handles": around.handles,
        "psk": around.psk,
        "pulse": around.pulses.notary,
    }


def _lease_manager(around: Surroundings) -> Parts:
    return {"node": around.settings.node, "workplace": around.workplace(LEASE_MANAGER)}


def _rotation_scheduler(around: Surroundings) -> Parts:
    return {"node": around.settings.node, "workplace": around.workplace(ROTATION_SCHEDULER)}


def _distributed_lock(around: Surroundings) -> Parts:
    return {"database": around.database()}


def _session_directory(around: Surroundings) -> Parts:
    return {"clock": around.clock}


PARTS: Mapping[str, Callable[[Surroundings], Parts]] = MappingProxyType(
    {
        SEAL_STATE: _seal_state,
        KEY_HOLDER: _key_holder,
        DISTRIBUTED_LOCK: _distributed_lock,
        SESSION_DIRECTORY: _session_directory,
        AUDIT_NOTARY: _audit_notary,
        LEASE_MANAGER: _lease_manager,
        ROTATION_SCHEDULER: _rotation_scheduler,
    }
)
"""The constructor arguments of each kind of actor."""

CLASSES: Mapping[str, Callable[..., Actor]] = MappingProxyType(
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


def build(kind: str, around: Surroundings) -> Actor:
    """Return a new actor of ``kind``."""
    return CLASSES[kind](**PARTS[kind](around))
