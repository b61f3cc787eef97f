"""One connected agent as a virtual actor.

The mailbox has two parts. Messages from the agent wait in a bounded inbox; when it is full the agent
waits, in its own socket. What Core wants to say is kept as state, not as a queue: the newest version
of each watched path that changed, and one flag for each other push. So a session's memory is bounded
whatever either side does, and a slow agent is told the newest state, not the history.

The promise to the agent: every change of a watched secret after ``watching`` is announced, possibly
several changes as one; no push holds a value; a request is answered once.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from actors.sessions.condition import Condition, condition_of, report_of
from actors.sessions.ports import Peer, Transport
from actors.sessions.requests import Errand, answered, refusal, take_back
from actors.sessions.rules import Ask, End, Remind, examine, renewal_due
from actors.sessions.showing import Showing
from actors.sessions.standing import Standing
from actors.sessions.surroundings import Surroundings
from actors.sessions.watched import Watched
from secrethub.errors import PermissionDenied, SecretHubError, TooLarge
from secrethub.wire import messages as wire
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.codec import ProtocolViolation
from secrethub.wire.session import Session


class AgentSession:
    """State, mailbox and behaviour of one connection. Run :meth:`run` in a task of its own.

    Attributes:
        peer: who is at the other end.
        condition: how the agent does, as it last said.
        doubtful: whether rights could not be checked when they changed; checked again later.
    """

    __slots__ = (
        "_admitted",
        "_around",
        "_asked_at",
        "_authority",
        "_began_at",
        "_drain",
        "_due",
        "_ended",
        "_heard_at",
        "_inbox",
        "_notices",
        "_paused",
        "_ping",
        "_protocol",
        "_sending_since",
        "_showing",
        "_stalled_since",
        "_standing",
        "_transport",
        "_wake",
        "_watched",
        "condition",
        "doubtful",
        "peer",
    )

    def __init__(self, peer: Peer, transport: Transport, around: Surroundings) -> None:
        self.peer = peer
        self.condition: Condition | None = None
        self.doubtful = False
        self._transport = transport
        self._around = around
        self._protocol = Session("core")
        self._inbox: list[wire.Message] = []
        self._wake: asyncio.Future[None] | None = None
        self._watched = Watched(self, around)
        self._standing = Standing(self, around)
        self._authority = self._ping = self._paused = False
        self._admitted = self._ended = False
        self._drain: wire.Drain | None = None
        self._notices: dict[str, wire.CoreMessage] = {}
        self._showing: Showing | None = None
        self._due: datetime | None = renewal_due(peer.not_before, peer.not_after, around.limits.renew_before)
        self._began_at = self._heard_at = around.clock.monotonic()
        self._asked_at: float | None = None
        self._sending_since: float | None = None
        self._stalled_since: float | None = None

    def __repr__(self) -> str:
        state = self._protocol.state
        return f"AgentSession(agent={self.peer.agent_id}, {state}, watches={len(self._watched)})"

    @property
    def ended(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._ended

    # From outside. Nothing here waits.

    def deliver(self, frame: bytes) -> None:
        """Take a frame from the agent; when the inbox is full the transport is paused."""
        if self._ended:
            return
        self.hear()
        try:
            message = self._protocol.receive(frame)
        except ProtocolViolation as exc:
            self.close(exc.close_code, exc.message)
            return
        if isinstance(message, wire.Pong):
            return
        if isinstance(message, wire.Hello):
            self._showing = Showing(self._around, message.witness)
        self._inbox.append(message)
        if len(self._inbox) >= self._around.limits.inbox and not self._paused:
            self._paused = True
            self._transport.pause()
        self._rouse()

    def hear(self) -> None:
        """Take note of a sign of life."""
        self._heard_at = self._around.clock.monotonic()
        self._asked_at = None

    def stall(self, *, stalled: bool) -> None:
        """Take note that the connection's buffer is full, or has room again."""
        self._stalled_since = self._around.clock.monotonic() if stalled else None

    def change(self, key: str, version: int, sequence: int) -> None:
        """Announce that the secret behind ``key`` changed."""
        self._watched.change(key, version, sequence)
        self._rouse()

    def change_all(self, sequence: int) -> None:
        """Announce that any watched secret may have changed: the stream of changes had a hole."""
        self._watched.change_all(sequence)
        self._rouse()

    def change_authority(self) -> None:
        """Have the session check its rights again and tell the agent."""
        self._authority = True
        self._rouse()

    def order(self) -> None:
        """Tell the agent that there is a command to be run."""
        self._notices["order"] = wire.OrderDue()
        self._rouse()

    def drain(self, message: wire.Drain) -> None:
        """Ask the agent to connect elsewhere."""
        self._drain = message
        self._rouse()

    def look(self, monotonic: float, now: datetime) -> None:
        """Do what the passing of time asks for: ping, remind, end."""
        waiting = [since for since in (self._sending_since, self._stalled_since) if since is not None]
        verdict = examine(
            self._around.limits,
            greeted=self._protocol.state != "opening",
            since_began=monotonic - self._began_at,
            since_heard=monotonic - self._heard_at,
            since_asked=None if self._asked_at is None else monotonic - self._asked_at,
            sending_for=monotonic - min(waiting) if waiting else None,
            not_after=self.peer.not_after,
            due=self._due,
            now=now,
        )
        if self._showing is not None and self._showing.due(monotonic):
            self._rouse()
        match verdict:
            case Ask():
                self._asked_at = monotonic
                self._ping = True
                self._rouse()
            case Remind():
                self._due = None
                self._notices["certificate"] = wire.CertificateDue(not_after=self.peer.not_after)
                self._rouse()
            case End(code=code, reason=reason):
                self.close(code, reason)

    def close(self, code: int, reason: str) -> None:
        """Close the connection and end the session."""
        if not self._ended:
            self._transport.close(code, reason)
            self.hang_up()

    def hang_up(self) -> None:
        """End the session: the connection is gone."""
        self._ended = True
        self._protocol.close()
        self._inbox.clear()
        self._watched.end()
        self._standing.end()
        self._rouse()

    def recover(self) -> None:
        """Go on after a crash: forget the inbox, keep who is there and what it watches.

        :meth:`run` answers what was in flight with ``internal`` and has rights checked again.
        """
        self._inbox.clear()
        self._sending_since = None
        self._authority = True
        self._made_room()

    # The actor's own task

    async def run(self) -> None:
        """Admit the agent, then work until the connection ends.

        Raises:
            Exception: a defect; the supervisor decides what follows.
        """
        try:
            if not self._admitted:
                await self._admit()
            for request in self._protocol.requests_in_flight():
                await self._send(wire.Error(id=request, code="internal", message="internal error"))
            while not self._ended:
                if not await self._step():
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
                    self._wake = None
        except ConnectionError:
            self.hang_up()
        except ProtocolViolation:
            if not self._ended:
                raise

    async def _admit(self) -> None:
        turns = self._around.turns
        try:
            rests_on = await self._around.access.admit(self.peer)
        except PermissionDenied:
            self.close(CloseCode.REVOKED, "certificate not accepted")
        except SecretHubError as exc:
            self.close(CloseCode.TRY_AGAIN_LATER, f"{exc.code}; retry in 5")
        else:
            self._admitted = True
            if not self._ended:
                self._around.admitted(self)
                self._standing.rest_on(rests_on)
                self._authority = turns != self._around.turns

    async def _step(self) -> bool:
        """Do one piece of work, the most urgent first; tell whether there was any."""
        if self._protocol.state == "open":
            if self._drain is not None:
                message, self._drain = self._drain, None
                await self._push(message)
                return True
            if self._authority:
                self._authority = False
                await self._check_rights()
                return True
            if (news := self._watched.take()) is not None:
                await self._push(news)
                return True
            if self._ping:
                self._ping = False
                await self._push(wire.Ping(server_time=self._around.clock.now()))
                return True
            if self._notices:
                await self._push(self._notices.popitem()[1])
                return True
            if self._showing is not None and (checkpoint := self._showing.take()) is not None:
                await self._push(checkpoint)
                return True
        if self._inbox:
            message_in = self._inbox.pop(0)
            self._made_room()
            await self._handle(message_in)
            return True
        return False

    async def _check_rights(self) -> None:
        """Look up standing and every watch again, and tell the agent when all is decided."""
        self.doubtful = False
        try:
            await self._standing.check()
            await self._watched.check()
        except PermissionDenied:
            self.close(CloseCode.REVOKED, "revoked")
            return
        except SecretHubError:
            self.doubtful = True
            return
        await self._push(wire.PolicyChanged())

    async def _handle(self, message: wire.Message) -> None:
        match message:
            case wire.Hello():
                await self._send(self._around.welcome(self.peer))
            case wire.Watch():
                await self._answer(message.id, await self._watched.add(message))
            case _ if isinstance(message, Errand):
                answer = await self._standing.speak_for(message)
                answer = answer or await answered(self._around.access, self.peer, message)
                await self._answer(message.id, answer)
            case wire.Unwatch():
                self._watched.remove(frozenset(message.paths))
            case wire.Status():
                self.condition = condition_of(message)
                self._around.access.reported(self.peer, report_of(message))
            case wire.Confirm():
                self._watched.confirm(message.path, message.version)

    async def _answer(self, request: int, message: wire.CoreMessage) -> None:
        try:
            await self._send(message)
        except (TooLarge, ConnectionError, ProtocolViolation) as exc:
            await take_back(self._around.access, self.peer, message)
            if not isinstance(exc, TooLarge):
                raise
            await self._send(refusal(request, exc))

    async def _push(self, message: wire.CoreMessage) -> None:
        await self._send(message)
        self._around.observer.pushed(wire.kind_of(message))

    async def _send(self, message: wire.CoreMessage) -> None:
        frame = self._protocol.send(message)
        self._sending_since = self._around.clock.monotonic()
        await self._transport.send(frame)
        self._sending_since = None

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _made_room(self) -> None:
        if self._paused and len(self._inbox) <= self._around.limits.inbox // 2:
            self._paused = False
            self._transport.resume()
