"""One function builds a serving process, in order, and hands every part what it needs.

A process is a gateway (HTTP), an agent gateway, or both; in a single process it is both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from actors.handles import Handles, SealClient
from secrethub.background import Background
from secrethub.clock import Clock, SystemClock
from secrethub.engines.engine import Engine
from secrethub.engines.kinds import engines
from secrethub.engines.runtime import Core
from secrethub.engines.system.seal_gate import seal_throttle
from secrethub.errors import SecretHubError, Unavailable
from secrethub.node import Listener, NodeSettings, read_cluster_key
from secrethub.operations.archiving import keep_archive
from secrethub.operations.deliveries import Deliveries
from secrethub.operations.key_rotation import rotate_when_due
from secrethub.operations.key_sync import KeySync
from secrethub.operations.months import keep_months
from secrethub.operations.note import note
from secrethub.operations.quotas import run_exchange, summarise
from secrethub.operations.reencrypt import reencrypt
from secrethub.operations.stream_ends import keep_stream_ends
from secrethub.operations.targets import watch_targets
from secrethub.operations.tidy import tidy
from secrethub.sensitive import protect_process
from serve.agent_gateway import AgentGateway
from serve.app import Application
from serve.checkpoint_watch import CheckpointWatch
from serve.listeners import HttpListener
from serve.metrics import NodeMetrics
from serve.timing import USUAL, Timing
from serve.tls_certificate import TlsIdentity

Part = Literal["gateway", "agents"]

_LAST_SECONDS = 2.0
"""For the last words of a process whose database may be away."""

_log = logging.getLogger(__name__)


class Process:
    """A serving process. ``applications`` has one entry a door, for the in-process and Serve wirings."""

    def __init__(
        self,
        settings: NodeSettings,
        handles: Handles,
        parts: tuple[Part, ...],
        name: str,
        kinds: Mapping[str, Engine] | None = None,
        clock: Clock | None = None,
        timing: Timing = USUAL,
    ) -> None:
        """Wire; nothing is opened before :meth:`start`.

        Args:
            settings: this node's.
            handles: the way to the actors.
            parts: what this process serves.
            name: what it is called in the ledger and in metrics.
            kinds: the kinds of engine; None for those of ``engines/kinds.py``.
            clock: what time it is; None for the operating system's.
            timing: how long it waits.
        """
        psk = read_cluster_key(settings)
        self._timing = timing
        self.core = Core(
            settings=settings,
            clock=clock or SystemClock(),
            seal=SealClient(handles, psk),
            engines=dict(kinds) if kinds is not None else engines(),
            process=name,
        )
        self._parts = parts
        self._handles = handles
        self._keys = KeySync(self.core, name)
        self._metrics = NodeMetrics(self.core, name, timing)
        self._checkpoints = CheckpointWatch(self.core)
        has_agents = "agents" in parts and settings.agents is not None
        self._agents = AgentGateway(orders=timing.orders) if has_agents else None
        self._tls: TlsIdentity | None = None
        self._listeners: list[HttpListener] = []
        self._background = Background()
        self._throttled = 0
        """Requests that the ledger does not know of yet."""

    def application(self, door: str) -> Application:
        """Return the application of a door."""
        return Application(self.core, door, metrics_text=self._metrics.text, timing=self._timing)

    def _listener(self, door: str, where: Listener, context: ssl.SSLContext | None = None) -> HttpListener:
        application = self.application(door)
        take = application.at_once.take
        return HttpListener(application, where, context=context, timing=self._timing, take=take)

    async def start(self) -> None:
        """Open everything; returns when the listeners accept.

        Raises:
            Misconfigured: something in the settings cannot work.
            OSError: an address cannot be listened on.
        """
        protect_process()
        settings = self.core.settings
        self.core.start()
        await self._keys.start()
        await self._metrics.start()
        self._checkpoints.start()
        if "gateway" in self._parts:
            if settings.http is not None:
                self._listeners.append(self._listener("http", settings.http))
            if settings.tls is not None:
                self._tls = TlsIdentity(self.core, self._timing)
                self._tls.start()
                self._listeners.append(self._listener("tls", settings.tls, self._tls.context))
            for listener in self._listeners:
                await listener.start()
            begin = self._background.begin
            begin("tidy", self._tidy)
            begin("rotate-when-due", lambda: self._care_for_keys(rotate_when_due))
            begin("reencrypt", lambda: self._care_for_keys(reencrypt))
            begin("ledger-months", lambda: keep_months(self.core.database))
            begin("stream-ends", lambda: keep_stream_ends(self.core, self._timing.streams))
            begin("targets", lambda: watch_targets(self.core))
            begin("audit-archive", lambda: keep_archive(self.core))
            begin("audit-sinks", lambda: Deliveries(self.core).run())
        if self._agents is not None:
            await self._agents.start(self.core, self._handles, lambda: self._checkpoints.newest)
        self._background.begin("throttle-summary", self._summarise)
        self._background.begin("quota-exchange", lambda: run_exchange(self.core))

    async def stop(self) -> None:
        """Drain and close everything, in the opposite order."""
        await self._background.end()
        if self._agents is not None:
            await self._agents.stop()
        await asyncio.gather(*(listener.stop() for listener in self._listeners))
        if self._tls is not None:
            await self._tls.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await self._sum_up()
        await self._checkpoints.stop()
        await self._metrics.stop()
        await self._keys.stop()
        await self.core.stop()

    def check_health(self) -> None:
        """Check that what must always run does run. A database that is away is no reason to fail.

        Raises:
            Unavailable: a part has ended; a fresh process would do better.
        """
        if not self.core.ledger.running:
            raise Unavailable("the ledger's writer has ended")
        if self._agents is not None and not self._agents.healthy:
            raise Unavailable("the agents' listener has ended")

    async def _summarise(self) -> None:
        while True:
            await asyncio.sleep(self._timing.summary)
            await self._sum_up()

    async def _sum_up(self) -> None:
        """Write down how many requests were throttled and so are not in the ledger one by one."""
        core = self.core
        if not core.unsealed:
            # Nothing could be signed now; what was counted stays counted.
            return
        bounds = (
            core.throttle_anonymous,
            core.throttle_public,
            core.throttle_logins,
            seal_throttle(core),
        )
        try:
            await summarise(core)
        except SecretHubError as exc:
            _log.warning("requests beyond quotas could not be summarised: %s", exc.code)
        new = sum(bound.take_refused() for bound in bounds)
        core.metrics.throttled.inc(new)
        self._throttled += new
        if not self._throttled:
            return
        try:
            await note(
                core,
                operation="request.throttled",
                path="",
                actor="anonymous",
                outcome="refused",
                reason="too many unauthenticated requests",
                detail={"count": self._throttled},
            )
        except SecretHubError as exc:
            _log.warning("%d throttled requests could not be summarised: %s", self._throttled, exc.code)
        else:
            self._throttled = 0

    async def _tidy(self) -> None:
        """Remove what has expired. Every node does it; rows are claimed with SKIP LOCKED."""
        while True:
            await asyncio.sleep(self._timing.tidy)
            if not self.core.unsealed:
                continue
            try:
                await tidy(self.core)
            except SecretHubError as exc:
                _log.warning("expired rows could not be removed: %s", exc.code)

    async def _care_for_keys(self, work: Callable[[Core], Awaitable[int | None]]) -> None:
        """Look again and again whether data keys, or what older ones sealed, are to be renewed.

        Every node does. One makes a key a time, and values are claimed with SKIP LOCKED.
        """
        while True:
            await asyncio.sleep(self._timing.keys)
            if not self.core.unsealed:
                continue
            try:
                await work(self.core)
            except SecretHubError as exc:
                _log.warning("%s: not now: %s", work.__name__, exc.code)
