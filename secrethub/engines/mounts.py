"""Which engine answers at which path: the mounts and the operations they offer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from secrethub.engines.engine import Engine, Method, Operation
from secrethub.engines.patterns import PatternTable
from secrethub.errors import IntegrityFailure, NoHandler, NotFound, UnsupportedOperation
from secrethub.storage.authority import MOUNTS, Authority
from secrethub.storage.freshness import Caches, Changed

AUTH = "auth/"
"""Where auth methods are."""
TOKEN_MOUNT = "auth/token/"  # noqa: S105 - a path
"""The auth method that is always there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """An engine's place.

    Attributes:
        path: with a trailing slash.
        type: the engine's kind.
        uuid: identity of the mount, kept when it moves; also the id of its store.
        options: ``{"version": "2"}`` for kv.
        settings: what the engine keeps of the mount as a whole, in its own form.
        default_lease_ttl: seconds that leases live; 0 for what holds in the whole cluster.
        max_lease_ttl: likewise, at most.
        leaving: being removed (``engines/unmounting.py``): nobody is led there any more.
        enabled_at: since when it is at this path, in microseconds since the epoch; 0 for since init.
        earlier: where it was before it moved: path, since when and until when.
    """

    path: str
    type: str
    uuid: str
    accessor: str
    description: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    default_lease_ttl: int = 0
    max_lease_ttl: int = 0
    leaving: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    enabled_at: int = 0
    earlier: tuple[tuple[str, int, int], ...] = ()

    @property
    def kind(self) -> str:
        """The kind of engine that answers: key/value stores of the first version have their own."""
        return "kv-v1" if self.type == "kv" and self.options.get("version") == "1" else self.type

    def covers(self, path: str) -> bool:
        """Tell whether ``path`` is this mount's or lies below it."""
        return path.startswith(self.path) or path + "/" == self.path


BUILT_IN = (
    Mount(path="sys/", type="system", uuid="sys", accessor="system_sys", description="system endpoints"),
    Mount(path="agents/", type="agents", uuid="agents", accessor="agents_agents", description="agents"),
    Mount(
        path="cubbyhole/",
        type="cubbyhole",
        uuid="cubbyhole",
        accessor="cubbyhole_cubbyhole",
        description="per-token private secret storage",
    ),
)


@dataclass(frozen=True, slots=True)
class _Found:
    """The mounts, longest path first, those being removed, and what is wrong with buckets of their table."""

    mounts: tuple[Mount, ...]
    leaving: tuple[Mount, ...]
    broken: Mapping[int, IntegrityFailure]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A request's way: mount, operation (None when the path is unknown) and captured parameters."""

    mount: Mount
    engine: Engine
    operation: Operation | None
    params: Mapping[str, str]
    known: bool


class MountTable:
    """The mounts as this process knows them; loaded again after every announced change."""

    def __init__(self, authority: Authority, caches: Caches, engines: Mapping[str, Engine]) -> None:
        self._authority = authority
        self._engines = dict(engines)
        self._tables = {kind: PatternTable(engine.operations()) for kind, engine in engines.items()}
        self._caches = caches
        self._found: _Found | None = None
        caches.subscribe(self._announced)
        caches.on_flush(self.drop)

    def _announced(self, change: Changed) -> None:
        if change.kind in {"authority", "issued"} and change.key.startswith("mounts/"):
            self._found = None

    def drop(self) -> None:
        """Forget the mounts; the next request loads them."""
        self._found = None

    async def load(self) -> tuple[Mount, ...]:
        """Return every mount, longest path first.

        Mounts whose rows are not authentic are left out; :meth:`route` says so.
        """
        return (self._found or await self._load()).mounts

    async def leaving(self) -> tuple[Mount, ...]:
        """Return the mounts that are being removed."""
        return (self._found or await self._load()).leaving

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines by their kinds."""
        return self._engines

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of engine that there are."""
        return tuple(self._engines)

    async def by_uuid(self, uuid: str) -> tuple[Mount, Engine] | None:
        """Return a mount, one that is being removed too, with its engine; None when it is gone."""
        found = self._found or await self._load()
        for mount in (*found.mounts, *found.leaving):
            if mount.uuid == uuid:
                return mount, self._engines[mount.kind]
        return None

    def operations(self, mount: Mount) -> list[Operation]:
        """Return what a mount offers, more specific patterns first."""
        return list(self._tables[mount.kind].operations)

    async def _load(self) -> _Found:
        moves = self._caches.authority_moves
        rows, broken = await self._authority.everything(MOUNTS)
        mounts = [*BUILT_IN, *(mount_from(row.key, row.body) for row in rows)]
        mounts.sort(key=lambda mount: -len(mount.path))
        found = _Found(
            tuple(mount for mount in mounts if not mount.leaving),
            tuple(mount for mount in mounts if mount.leaving),
            broken,
        )
        if moves == self._caches.authority_moves:
            self._found = found
        return found

    async def route(self, method: Method, path: str, *, sealed: bool = False) -> Route:
        """Find who answers; where nothing is mounted, a route without an operation.

        Args:
            method: how it is called.
            path: canonical path.
            sealed: only the system endpoints exist then.

        Raises:
            NotFound: nothing answers there while it is sealed.
            IntegrityFailure: something may have been, but its row is not authentic.
        """
        # What tells the state of the system answers also when no row can be read.
        for mount in BUILT_IN[:1] if sealed else BUILT_IN:
            if mount.covers(path):
                return self._within(mount, method, path[len(mount.path) :])
        if sealed:
            raise NotFound(f"no engine is mounted at {path}")
        found = self._found or await self._load()
        for mount in found.mounts:
            if mount.covers(path):
                return self._within(mount, method, path[len(mount.path) :])
        _check_hidden(found, path)
        return _NOWHERE

    async def auth_method(self, path: str) -> Mount | None:
        """Return the auth method that ``path`` is, or was, a path of; None when it is not there any more.

        Raises:
            IntegrityFailure: something may be, but its row is not authentic.
        """
        found = self._found or await self._load()
        for mount in found.mounts:
            if mount.path.startswith(AUTH) and mount.covers(path):
                return mount
        _check_hidden(found, path)
        return None

    def _within(self, mount: Mount, method: Method, rest: str) -> Route:
        engine = self._engines[mount.kind]
        known = False
        for operation, match in self._tables[mount.kind].matching(rest):
            known = True
            if operation.method == method:
                params = {k: v for k, v in match.groupdict().items() if v is not None}
                return Route(mount=mount, engine=engine, operation=operation, params=params, known=True)
        return Route(mount=mount, engine=engine, operation=None, params={}, known=known)


def _check_hidden(found: _Found, path: str) -> None:
    """Check that no mount above ``path`` may be missing because its row is not authentic.

    Raises:
        IntegrityFailure: one may be.
    """
    names = path.split("/")
    for depth in range(1, len(names) + 1 if found.broken else 0):
        prefix = "/".join(names[:depth]) + "/"
        trouble = found.broken.get(MOUNTS.bucket(prefix))
        if trouble is not None:
            raise IntegrityFailure(trouble.table, prefix, trouble.reason)


class _Nobody:
    """What answers where nothing is mounted."""

    kind = "none"

    def operations(self) -> tuple[Operation, ...]:
        """Return nothing."""
        return ()

    def native_prefix(self, mount: str) -> str:
        """Native rules write the path as it is."""
        return mount


_NOWHERE = Route(
    mount=Mount(path="", type=_Nobody.kind, uuid="", accessor=""),
    engine=_Nobody(),
    operation=None,
    params={},
    known=False,
)


def mount_from(path: str, body: Mapping[str, Any]) -> Mount:
    """Return the mount that a row describes."""
    return Mount(
        path=path,
        type=body["type"],
        uuid=body["uuid"],
        accessor=body["accessor"],
        description=body.get("description", ""),
        options=body.get("options", {}),
        default_lease_ttl=body.get("default_lease_ttl", 0),
        max_lease_ttl=body.get("max_lease_ttl", 0),
        leaving=body.get("leaving", False),
        settings=body.get("settings", {}),
        enabled_at=body.get("enabled_at", 0),
        earlier=tuple((path, since, until) for path, since, until in body.get("earlier", ())),
    )


def no_operation(route: Route, path: str) -> NoHandler | UnsupportedOperation:
    """Return the error for a route without an operation, in Vault's words."""
    if route.known:
        return UnsupportedOperation("unsupported operation")
    shown = json.dumps(re.sub(r"[^ -~]", "?", path))
    return NoHandler(f"no handler for route {shown}. route entry not found.")
