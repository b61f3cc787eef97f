"""Supervises the sessions of one process: starts, restarts, replaces and ends them.

A session is a transient child under one_for_one rules, with a crash history of its own: one that
keeps crashing is closed, so that its agent comes back on a new connection, and no other notices.
Beside the sessions run two permanent tasks: one tells them of changes, one looks at every session
now and then, so that there are no timers per session. When one of them keeps crashing the
supervisor gives up (:attr:`SessionSupervisor.healthy`), and its process should be replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from actors.restart import ChildSpec, History, Restart, Rules, decide
from actors.sessions.announcer import Announcer, in_batches
from actors.sessions.ports import Access, Observer, Peer, Transport
from actors.sessions.rules import Limits
from actors.sessions.session import AgentSession
from actors.sessions.surroundings import Surroundings
from actors.sessions.watches import WatchIndex
from secrethub.background import end
from secrethub.clock import Clock
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.messages import Drain

_log = logging.getLogger(__name__)

_RULES = Rules(strategy="one_for_one", intensity=3, period=60.0)
_LOOK_EVERY = 1.0


class SessionSupervisor:
    """Every session of this process, and which of them is its agent's: the newest that was admitted.

    Attributes:
        announcer: to be told what changed.
    """

    def __init__(
        self,
        *,
        access: Access,
        observer: Observer,
        clock: Clock,
        gateway: str,
        agent_urls: tuple[str, ...] = (),
        limits: Limits | None = None,
        come: Callable[[AgentSession], None] = lambda _session: None,
        gone: Callable[[AgentSession], None] = lambda _session: None,
        beside: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        """Prepare.

        Args:
            access: the one path to decisions and secrets.
            observer: told what sessions do.
            clock: time.
            gateway: name of this gateway, told to agents.
            agent_urls: addresses of all gateways, told to agents.
            limits: bounds of every session.
            come: called once for every session whose agent was admitted.
            gone: called once for every session that ended, admitted or not.
            beside: further permanent tasks by name, such as the registrar's.
        """
        self._around = Surroundings(
            access=access,
            secrets=WatchIndex(),
            authority=WatchIndex(),
            observer=observer,
            clock=clock,
            limits=limits or Limits(),
            gateway=gateway,
            agent_urls=agent_urls,
            admitted=self._seat,
        )
        self._come = come
        self._gone = gone
        self._by_agent: dict[str, AgentSession] = {}
        self._tasks: dict[AgentSession, asyncio.Task[None]] = {}
        self.announcer = Announcer(self._around, self._by_agent)
        self._works = {"announcer": self.announcer.run, "look": self._look, **(beside or {})}
        self._permanent: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"SessionSupervisor(sessions={len(self._tasks)}, watches={len(self._around.secrets)})"

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def healthy(self) -> bool:
        """Whether the permanent tasks run."""
        return bool(self._permanent) and not any(task.done() for task in self._permanent)

    @property
    def watches(self) -> int:
        """Watches of all sessions together."""
        return len(self._around.secrets)

    @property
    def failing(self) -> int:
        """Agents that cannot keep all of their files up to date."""
        conditions = (session.condition for session in self._by_agent.values())
        return sum(condition is not None and condition.failing > 0 for condition in conditions)

    def sessions(self) -> tuple[AgentSession, ...]:
        """Return the session of each agent."""
        return tuple(self._by_agent.values())

    def find(self, agent_id: str) -> AgentSession | None:
        """Return the agent's session."""
        return self._by_agent.get(agent_id)

    def start(self) -> None:
        """Begin to tell sessions of changes and to look after them."""
        self._permanent = [
            asyncio.create_task(self._keep(name, work), name=f"sessions-{name}")
            for name, work in self._works.items()
        ]

    def begin(self, peer: Peer, transport: Transport) -> AgentSession:
        """Start a session for a connection. It is worth nothing before Core has admitted its agent."""
        session = AgentSession(peer, transport, self._around)
        self._tasks[session] = asyncio.create_task(self._supervise(session), name=f"agent-{peer.agent_id}")
        return session

    def _seat(self, session: AgentSession) -> None:
        """Make an admitted session its agent's; an older one is closed."""
        older = self._by_agent.get(session.peer.agent_id)
        self._by_agent[session.peer.agent_id] = session
        if older is not None:
            self.replaced(older)
        self._come(session)

    def replaced(self, session: AgentSession) -> None:
        """Close a session because its agent has a newer one."""
        session.close(CloseCode.REPLACED, "replaced by a newer connection")

    async def drain(self, urls: tuple[str, ...], within: float) -> None:
        """Ask every agent to connect elsewhere and wait until they have, ``within`` seconds at most."""
        message = Drain(urls=urls, within=within)
        for session in tuple(self._tasks):
            session.drain(message)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()), timeout=within)

    async def stop(self, *, grace: float = 2.0) -> None:
        """Close every session and end; a session busy for longer than ``grace`` seconds is cut off."""
        await end(*self._permanent)
        self._permanent = []
        for session in tuple(self._tasks):
            session.close(CloseCode.DRAINED, "this gateway stops")
        tasks = tuple(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _supervise(self, session: AgentSession) -> None:
        child = ChildSpec(name=session.peer.agent_id, restart="transient")
        history: History | None = ()
        try:
            while not session.ended and history is not None:
                try:
                    await session.run()
                except Exception:  # noqa: BLE001 - this is the supervisor: whatever ends a child
                    _log.exception("agent session crashed: %r", session)
                    history = self._after_crash(child, history)
                    session.recover()
            session.close(CloseCode.INTERNAL, "internal error")
        finally:
            session.hang_up()
            self._tasks.pop(session, None)
            if self._by_agent.get(session.peer.agent_id) is session:
                del self._by_agent[session.peer.agent_id]
            self._gone(session)

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        child = ChildSpec(name=name)
        history: History | None = ()
        while history is not None:
            try:
                await work()
            except Exception:  # noqa: BLE001 - this is the supervisor: whatever ends a child
                _log.exception("the sessions' %s crashed", name)
                history = self._after_crash(child, history)
                self.announcer.lost_track()
        _log.critical("the sessions' %s is given up", name)

    def _after_crash(self, child: ChildSpec, history: History) -> History | None:
        """Return the history to go on with, or None to give up."""
        now = self._around.clock.monotonic()
        decision = decide(_RULES, (child,), child, normal=False, history=history, now=now)
        return decision.history if isinstance(decision, Restart) else None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            monotonic, now = self._around.clock.monotonic(), self._around.clock.now()

            def look(session: AgentSession) -> None:
                session.look(monotonic, now)  # noqa: B023 - called before the next turn
                if session.doubtful:
                    session.change_authority()

            await in_batches(tuple(self._tasks), look)
