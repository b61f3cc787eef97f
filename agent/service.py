"""The running agent: everything built in order, every task named and watched.

If a task ends by a defect, all end and the process exits with 1: the service manager starts it anew,
and what it delivered stays where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agent import identity as identities
from agent import systemd
from agent.backoff import Backoff
from agent.cache import Cache
from agent.clocks import read_clocks
from agent.confirmations import Confirmations
from agent.connection import Connection, IdentityRefused
from agent.credentials import Credentials
from agent.delivery import Delivery
from agent.disk_cache import open_disk_cache
from agent.enrollment import ensure_identity, lay_aside
from agent.grants import Grants
from agent.identity import Identity
from agent.ledger import LocalLedger
from agent.orders import Orders
from agent.reader import JITTER, Reader
from agent.reload import Reloads
from agent.renewal import Renewal
from agent.settings import Settings, SocketSettings
from agent.socket_api import SocketApi
from agent.socket_server import SocketServer, listen
from agent.state import StateDirectory, open_state
from agent.templates import MADE, environment
from agent.urls import usual_gateways
from agent.witness import LedgerWitness
from secrethub import __version__
from secrethub.clock import SystemClock
from secrethub.errors import SecretHubError
from secrethub.wire.messages import Status, TemplateStatus

T = TypeVar("T")

READY_WITHIN = 30.0
"""Seconds after which the service counts as ready although not every file could be tried."""
_REPORT_PAUSE = 0.5
"""Seconds in which changes of state join one report to Core."""

_log = logging.getLogger(__name__)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the agent until ``stop`` is set.

    Raises:
        SecretHubError: the agent cannot run; says why.
        ExceptionGroup: a defect in a task.
    """
    with open_state(settings.state_dir) as state:
        enrolled = await _unless(stop, ensure_identity(settings, state, SystemClock()))
        if enrolled is not None:
            await _Agent(settings, state, enrolled).run(stop)


class _Agent:
    """All parts of an enrolled agent, and what Core's events mean to them."""

    def __init__(self, settings: Settings, state: StateDirectory, enrolled: Identity) -> None:
        guesses = usual_gateways(settings.core.urls)
        urls = identities.load_endpoints(state) or guesses
        clock = SystemClock()
        backoff = Backoff()
        self._backoff = backoff
        cache = Cache(max_entries=settings.cache.max_entries, max_bytes=settings.cache.max_bytes)
        self._settings = settings
        self._state = state
        self._disk = open_disk_cache(state.path, _runtime_dirs()) if settings.cache.disk else None
        self._witness = LedgerWitness(state, enrolled.cluster)
        self._connection = Connection(
            enrolled, settings.host.name, urls, clock, backoff, guesses, self._witness
        )
        self._confirmations = Confirmations(self._connection.tell)
        self._reader = Reader(
            self._connection,
            cache,
            self._disk,
            settings.cache,
            read_clocks,
            backoff,
            self._pinned,
            self._confirmations.cached,
        )
        self._credentials = Credentials(
            self._connection, read_clocks, backoff, self._filed, lambda path: self._stir_soon(MADE + path)
        )
        self._renewal = Renewal(self._connection, state, settings.auth.key_type, clock)
        self._ledger = LocalLedger(state.path)
        self._orders = Orders(self._connection, settings.commands)
        self._changed = asyncio.Event()
        self._moved: asyncio.Queue[Sequence[str]] = asyncio.Queue()
        self._refused: IdentityRefused | None = None
        reloads = Reloads(state)
        shared = environment()
        self._deliveries = [
            Delivery(
                template,
                shared,
                self._reader,
                self._credentials,
                self._ledger,
                reloads,
                confirm=self._confirmations.delivered,
                noticed=self._changed.set,
                ttl=settings.cache.ttl,
            )
            for template in settings.templates
        ]
        self._confirmations.watch_over(self._deliveries)
        owed = reloads.expected(settings.templates)
        for delivery in self._deliveries:
            if delivery.settings in owed:
                delivery.owe_reload()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop, or until Core refuses the identity."""
        self._reader.restore()
        with contextlib.ExitStack() as resources:
            resources.callback(self._ledger.close)
            works: dict[str, Coroutine[Any, Any, None]] = {
                "connection": self._hold_connection(stop),
                "refresh": self._reader.run_refresh(),
                "sweep": self._reader.run_sweep(),
                "credentials": self._credentials.run(),
                "renewal": self._renewal.run(),
                "confirmations": self._confirmations.run(),
                "orders": self._orders.run(),
                "report": self._report(),
                "endpoints": self._keep_endpoints(),
                "witness": self._witness.run(),
                "ready": self._announce(),
            }
            if self._disk is not None:
                works["disk-cache"] = self._disk.run()
            if self._settings.socket is not None:
                works["socket"] = self._prepare_socket(self._settings.socket, resources)
            for delivery in self._deliveries:
                works[f"template:{delivery.settings.destination}"] = delivery.run()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work, name=name) for name, work in works.items()]
                await stop.wait()
                systemd.notify("STOPPING=1")
                for task in tasks:
                    task.cancel()
        if self._refused is not None:
            raise self._refused

    # What Core says of its own accord

    def opened(self) -> None:
        """A new conversation: anything may have changed since the last one."""
        self.changed_all()
        self._credentials.hurry()
        self._orders.stir()

    def changed(self, path: str) -> None:
        """A watched path changed."""
        self._reader.outdate(path)
        self._stir_soon(path)

    def changed_all(self) -> None:
        """What the agent may read may be different."""
        self._reader.outdate_all()
        self._stir_soon(None)
        self._changed.set()

    def certificate_due(self) -> None:
        """Core says that it is time to renew."""
        self._renewal.hurry()

    def order_due(self) -> None:
        """Core has something to be run."""
        self._orders.stir()

    def moved(self, urls: Sequence[str]) -> None:
        """Core has named other gateways."""
        self._moved.put_nowait(urls)

    def _stir_soon(self, path: str | None) -> None:
        """Have files looked at, all at one moment: what they have in common is then done once."""

        def stir() -> None:
            for delivery in self._deliveries:
                delivery.stir(path)

        asyncio.get_running_loop().call_later(self._backoff.jitter(JITTER), stir)

    # Tasks

    async def _hold_connection(self, stop: asyncio.Event) -> None:
        try:
            await self._connection.run(self)
        except IdentityRefused as exc:
            if exc.revoked:
                self._reader.forget_all()
                self._credentials.forget_all()
                lay_aside(self._state)
            self._refused = exc
            stop.set()

    def _prepare_socket(
        self, settings: SocketSettings, resources: contextlib.ExitStack
    ) -> Coroutine[Any, Any, None]:
        """Put the socket in place and return the work of serving it."""
        api = SocketApi(
            Grants(settings.allow),
            self._reader,
            self._credentials,
            self._ledger,
            status=self._describe,
            connected=lambda: self._connection.node is not None,
        )
        listening = resources.enter_context(listen(settings))
        return SocketServer(api.handle).run(listening)

    async def _report(self) -> None:
        """Tell Core how the agent does, whenever that changed."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_REPORT_PAUSE)
            self._changed.clear()
            files = [
                TemplateStatus(
                    destination=str(delivery.settings.destination)[:512],
                    rendered=delivery.state.rendered,
                    error=delivery.state.error and delivery.state.error[:256],
                )
                for delivery in self._deliveries[:256]
            ]
            await self._connection.tell(Status(cached=self._reader.cached, templates=tuple(files)))

    async def _keep_endpoints(self) -> None:
        """Store where the gateways are, for the next start."""
        while True:
            urls = await self._moved.get()
            try:
                await asyncio.to_thread(identities.save_endpoints, self._state, urls)
            except SecretHubError as exc:
                _log.error("the gateways' addresses could not be stored", extra={"error": str(exc)})
            else:
                _log.info("gateways have other addresses", extra={"urls": list(urls)})

    async def _announce(self) -> None:
        """Tell systemd that the agent is ready: every file was tried once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN):
                for delivery in self._deliveries:
                    await delivery.tried.wait()
        systemd.notify("READY=1")
        _log.info("ready", extra={"agent_id": self._connection.identity.agent_id})

    def _pinned(self) -> set[str]:
        return {path for delivery in self._deliveries for path in delivery.paths}

    def _filed(self) -> set[str]:
        return {path.removeprefix(MADE) for path in self._pinned() if path.startswith(MADE)}

    def _describe(self) -> Mapping[str, Any]:
        held = self._connection.identity
        return {
            "agent_id": held.agent_id,
            "name": self._settings.host.name,
            "version": __version__,
            "cluster": held.cluster,
            "gateway": self._connection.node,
            "connected": self._connection.node is not None,
            "certificate_not_after": held.validity.not_after.isoformat(),
            "certificate_due": held.due.isoformat(),
            "cached": self._reader.cached,
            "credentials": len(self._credentials),
            "disk_cache": self._disk is not None,
            "templates": [
                {
                    "destination": str(delivery.settings.destination),
                    "rendered": delivery.state.rendered,
                    "error": delivery.state.error,
                }
                for delivery in self._deliveries
            ],
        }


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do some work; None when the agent was told to stop before it was done."""
    task = asyncio.create_task(work, name="enrollment")
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for pending in (task, stopped):
            pending.cancel()
        await asyncio.wait([task, stopped])


def _runtime_dirs() -> list[Path]:
    """Return where a tmpfs of this process may be, the best first."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    return [*([Path(own)] if own else []), Path("/run")]
