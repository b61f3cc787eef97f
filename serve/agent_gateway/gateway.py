"""The agents' door of one serving process: opened once keys are there, kept through sealing.

Who an agent is comes from its certificate and from nothing else; whether it is still good comes from
its row, when it connects and again at each read. While Core is sealed connections stay up and reads
are answered with ``sealed``.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
from collections.abc import Callable

from prometheus_client import Gauge, Histogram

from actors.handles import Handles
from actors.sessions.ports import Peer
from actors.sessions.registrar import Registrar
from actors.sessions.rules import Limits
from actors.sessions.session import AgentSession
from actors.sessions.supervisor import SessionSupervisor
from secrethub.audit.checkpoint import Signed
from secrethub.background import end
from secrethub.engines.runtime import Core
from secrethub.errors import PermissionDenied, SecretHubError
from secrethub.ids import new_uuid
from secrethub.operations.note import note
from secrethub.operations.transport_ca import check_agent_certificate
from secrethub.pki.chain import from_der, validity
from secrethub.storage.freshness import Changed
from serve.agent_gateway.access import CONNECT, CoreAccess
from serve.agent_gateway.admission import Admission, Later, Visits
from serve.agent_gateway.connection import AgentConnection, Refused
from serve.agent_gateway.identity import take_identity
from serve.agent_gateway.listener import AgentListener, allow_descriptors, bind
from serve.agent_gateway.orders import OrderWatch
from serve.agent_gateway.uses import UsesWriter
from serve.agent_gateway.witnesses import Witnesses

_log = logging.getLogger(__name__)

_TURN = 0.25
"""Seconds between looks at whether keys have come or a certificate is due."""
_RETRY = 5.0
"""Seconds before a failed renewal of the gateway's own certificate is tried again."""
_VISIT_EVERY = 2.0
_VISITS = 10
"""One agent may connect so many times in a row, then once in so many seconds."""
_CONFIRM_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class AgentGateway:
    """A plain class; where it runs is decided elsewhere."""

    def __init__(
        self,
        *,
        capacity: int = 12_000,
        rate: float = 400.0,
        burst: float = 1_000.0,
        limits: Limits | None = None,
        orders: float = 10.0,
    ) -> None:
        """Prepare.

        Args:
            capacity: agents connected at most.
            rate: agents let in a second in the long run.
            burst: agents let in at once.
            limits: bounds of each session.
            orders: seconds between looks for orders of which nothing was heard.
        """
        self._capacity = capacity
        self._admission = Admission(rate=rate, burst=burst, capacity=capacity)
        self._visits = Visits(every=_VISIT_EVERY, burst=_VISITS, known=capacity)
        self._limits = limits
        self._order_pause = orders
        self._bound: socket.socket | None = None
        self._listener: AgentListener | None = None
        self._task: asyncio.Task[None] | None = None
        self._notes: set[asyncio.Task[None]] = set()
        self._session_ids: dict[AgentSession, str] = {}
        self._cluster = ""
        self._renew_at = 0.0
        self._lost_at: float | None = None
        self._opened = asyncio.Event()

    def __repr__(self) -> str:
        return f"AgentGateway(agents={len(self._session_ids)})"

    @property
    def port(self) -> int:
        """The port, or 0 while there is none."""
        return 0 if self._bound is None else int(self._bound.getsockname()[1])

    @property
    def healthy(self) -> bool:
        """Whether everything that should run does. Waiting for keys is healthy."""
        if self._task is None:
            return True
        listening = self._listener is None or self._listener.healthy
        return not self._task.done() and self._supervisor.healthy and listening

    async def start(
        self, core: Core, handles: Handles, newest: Callable[[], Signed | None] = lambda: None
    ) -> None:
        """Begin; the listener opens by itself once ``core`` has keys. Nothing without an address.

        Args:
            core: of the serving process.
            handles: the way to the actors.
            newest: the newest checkpoint of the ledger, which agents are shown.

        Raises:
            OSError: the address cannot be had.
        """
        self._core = core
        address = core.settings.agents
        if address is None:
            return
        allow_descriptors(self._capacity)
        self._bound = bind(address.host, address.port)
        registry = core.metrics.registry
        self._confirmations = Histogram(
            "secrethub_agent_confirm_seconds",
            "Time from telling an agent of a change until it has the new version in use.",
            buckets=_CONFIRM_BUCKETS,
            registry=registry,
        )
        Gauge("secrethub_agent_watches", "Secrets watched by agents.", registry=registry).set_function(
            lambda: self._supervisor.watches
        )
        Gauge(
            "secrethub_agents_failing", "Agents with a file that is not up to date.", registry=registry
        ).set_function(lambda: self._supervisor.failing)
        name = f"{core.settings.node}/{new_uuid()}"
        self._registrar = Registrar(
            handles.session_directory,
            gateway=name,
            node=core.settings.node,
            clock=core.clock,
            replaced=self._replaced_elsewhere,
        )
        uses = UsesWriter(core.database)
        witnesses = Witnesses(core, handles, newest)
        self._orders = OrderWatch(core.database, core.caches, pause=self._order_pause)
        self._supervisor = SessionSupervisor(
            access=CoreAccess(core, uses, witnesses),
            observer=self,
            clock=core.clock,
            gateway=core.settings.node,
            agent_urls=core.settings.agent_urls,
            limits=self._limits,
            come=self._came,
            gone=self._gone,
            beside={
                "registrar": self._registrar.run,
                "uses": uses.run,
                "witnesses": witnesses.run,
                "orders": lambda: self._orders.run(self._supervisor),
            },
        )
        self._unsubscribe = core.caches.subscribe(self._announced)
        core.caches.on_flush(self._flushed)
        self._supervisor.start()
        self._task = asyncio.create_task(self._run(), name="agent-gateway")

    async def opened(self) -> None:
        """Wait until agents can connect."""
        await self._opened.wait()

    async def stop(self, *, within: float = 5.0) -> None:
        """Accept nobody more, have agents move elsewhere if there is an elsewhere, and close.

        Args:
            within: seconds that agents get to connect elsewhere.
        """
        if self._task is None:
            return
        self._unsubscribe()
        self._orders.close()
        await end(self._task)
        elsewhere = self._core.settings.agent_urls[1:]
        if self._listener is not None:
            await self._listener.stop_accepting()
            if elsewhere:
                await self._supervisor.drain(elsewhere, within)
        await self._supervisor.stop()
        if self._listener is not None:
            await self._listener.close()
        for task in self._notes:
            task.cancel()
        await asyncio.gather(*self._notes, return_exceptions=True)
        if self._bound is not None:
            self._bound.close()
        self._task = self._listener = self._bound = None

    async def health(self) -> dict[str, object]:
        """Tell how it does."""
        agents = len(self._session_ids)
        return {"name": "agent-gateway", "healthy": self.healthy, "port": self.port, "agents": agents}

    # The gate: what the listener asks

    def enter(self, certificate: bytes, address: str) -> Peer | Refused:
        """Decide before a WebSocket is accepted, by the certificate and by how busy this is."""
        refusals = self._core.metrics.refusals
        try:
            agent_id, serial = check_agent_certificate(certificate, self._cluster)
            window = validity(from_der(certificate))
        except PermissionDenied as exc:
            refusals.labels("not_an_agent").inc()
            self._note_refusal(exc.reason, address)
            return Refused(status=http.HTTPStatus.FORBIDDEN, message="not an agent's certificate")
        now = self._core.clock.monotonic()
        reason, later = "too_often", self._visits.admit(agent_id, now)
        if later is None:
            reason, later = "busy", self._admission.admit(now, len(self._supervisor))
        if isinstance(later, Later):
            refusals.labels(reason).inc()
            return Refused(
                status=http.HTTPStatus.SERVICE_UNAVAILABLE,
                message="try again later",
                retry_after=later.retry_after,
            )
        return Peer(
            agent_id=agent_id,
            serial=serial,
            address=address,
            not_before=window.not_before,
            not_after=window.not_after,
        )

    def entered(self, connection: AgentConnection, peer: Peer) -> AgentSession:
        """Start the session of a connection that was let in."""
        return self._supervisor.begin(peer, connection)

    # The observer: what sessions tell

    def pushed(self, kind: str) -> None:
        """Count a push."""
        self._core.metrics.pushes.labels(kind).inc()

    def confirmed(self, seconds: float) -> None:
        """Measure a confirmation."""
        self._confirmations.observe(seconds)

    def _came(self, session: AgentSession) -> None:
        self._session_ids[session] = self._registrar.come(session.peer.agent_id)
        self._core.metrics.agents.set(len(self._session_ids))

    def _gone(self, session: AgentSession) -> None:
        session_id = self._session_ids.pop(session, None)
        if session_id is not None:
            self._registrar.leave(session.peer.agent_id, session_id)
        self._core.metrics.agents.set(len(self._session_ids))

    def _replaced_elsewhere(self, agent_id: str, session_id: str) -> None:
        session = self._supervisor.find(agent_id)
        if session is not None and self._session_ids.get(session) == session_id:
            self._supervisor.replaced(session)

    # Changes

    def _announced(self, change: Changed) -> None:
        if change.kind == "kv":
            self._supervisor.announcer.secret_changed(change.key, change.version, change.sequence)
        elif change.kind == "authority":
            self._supervisor.announcer.authority_changed(change.key)

    def _flushed(self) -> None:
        self._lost_at = self._core.clock.monotonic()

    def _tell_of_loss(self) -> None:
        """Once changes are heard of again, say that some may have been missed; not before."""
        if self._lost_at is not None and self._core.feed.healthy_at > self._lost_at:
            self._lost_at = None
            self._supervisor.announcer.lost_track()

    async def _run(self) -> None:
        epoch = None
        try:
            while True:
                self._tell_of_loss()
                # By its epoch: between two looks the cluster may have been sealed and unsealed.
                if self._core.unsealed and epoch != self._core.keys.epoch:
                    epoch = self._core.keys.epoch
                    self._supervisor.announcer.unsealed()
                if self._core.clock.monotonic() >= self._renew_at and self._core.unsealed:
                    await self._take_identity()
                await asyncio.sleep(_TURN)
        except Exception:
            _log.exception("the agents' gateway has failed")
            raise

    async def _take_identity(self) -> None:
        """Get a certificate; with the first one the listener opens."""
        core = self._core
        try:
            identity = await take_identity(core)
        except SecretHubError as exc:
            _log.warning("no certificate for the agents' listener yet: %s", exc)
            self._renew_at = core.clock.monotonic() + _RETRY
            return
        self._renew_at = core.clock.monotonic() + (identity.due - core.clock.now()).total_seconds()
        self._cluster = identity.cluster
        if self._listener is not None:
            self._listener.context = identity.context
            return
        assert self._bound is not None
        self._listener = AgentListener(
            self._bound, identity.context, self, lambda why: core.metrics.refusals.labels(why).inc()
        )
        self._listener.start()
        self._opened.set()
        _log.info("agents can connect on port %d", self.port)

    def _note_refusal(self, reason: str, address: str) -> None:
        """Write a refusal down, beside the loop: whoever is refused does not wait for it."""
        try:
            self._core.throttle_anonymous.admit(self._core.clock.monotonic(), address)
        except SecretHubError:
            return
        task = asyncio.create_task(self._write_refusal(reason, address), name="agents-refusal")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write_refusal(self, reason: str, address: str) -> None:
        try:
            await note(
                self._core,
                operation=CONNECT,
                path="agents",
                actor="anonymous",
                outcome="denied",
                reason=reason,
                client=address,
                door="agent",
            )
        except SecretHubError as exc:
            _log.warning("a refused connection from %s was not written down: %s", address, exc.code)
