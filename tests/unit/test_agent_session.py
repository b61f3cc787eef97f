"""Agent sessions as virtual actors: what agents are told, what bounds them, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import pytest

from actors.sessions.condition import NAMED, Condition, report_of
from actors.sessions.ports import IssuedCertificate, Peer, Secret
from actors.sessions.rules import Limits
from actors.sessions.session import AgentSession
from actors.sessions.supervisor import SessionSupervisor
from secrethub.errors import NotFound, PermissionDenied, SecretHubError, Unavailable
from secrethub.storage.agent_reports import Failure, Report
from secrethub.wire import messages as wire
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.codec import FROM_CORE_LIMIT
from secrethub.wire.session import Session

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
M = TypeVar("M")


class TurnedClock:
    """A clock that only the test turns."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        """The wall clock."""
        return START + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        """Seconds since the test began."""
        return self.passed


class House:
    """Secrets and rights in memory, behind the sessions' ``Access`` port."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {"secrets/a": {"k": "v"}, "secrets/b": {"k": "w"}}
        self.allowed = {"secrets/a", "secrets/b", "secrets/none"}
        self.without: set[str | None] = set()
        """Applications that may read nothing."""
        self.revoked: set[str] = set()
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.reads = 0
        self.uses: list[tuple[str, str, int | None]] = []
        self.reports: list[tuple[str, Report]] = []
        self.heard: list[bytes] = []
        self.newest: wire.Checkpoint | None = None

    async def admit(self, peer: Peer) -> frozenset[str]:
        """Let in whom standing lets stay."""
        return await self.standing(peer)

    async def standing(self, peer: Peer, applications: Collection[str] = ()) -> frozenset[str]:
        """Refuse the revoked."""
        if isinstance(self.failure, SecretHubError):
            raise self.failure
        if peer.agent_id in self.revoked:
            raise PermissionDenied("revoked")
        named = (f"bindings/application/{name}" for name in applications)
        return frozenset({f"agents/{peer.agent_id}", "policies/web", *named})

    async def read(
        self, _peer: Peer, path: str, version: int | None, application: str | None = None
    ) -> Secret:
        """Give a secret, once the gate is open."""
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if path not in self.allowed or application in self.without:
            raise PermissionDenied("no policy of this agent allows it")
        if path not in self.secrets:
            raise NotFound("nothing there")
        return Secret(data=self.secrets[path], version=version or 1, generation=7, created_time="t")

    async def watch(self, _peer: Peer, path: str) -> str:
        """Allow watching what may be read."""
        if path not in self.allowed:
            raise PermissionDenied("no policy of this agent allows it")
        return "secret/" + path.removeprefix("secrets/")

    async def may_still_watch(self, _peer: Peer, path: str) -> bool:
        """Decide anew."""
        return path in self.allowed

    async def take_order(self, peer: Peer, held: tuple[str, ...]) -> wire.Order | None:
        raise AssertionError(peer, held)

    async def answer_order(self, peer: Peer, message: wire.AnswerOrder) -> None:
        raise AssertionError(peer, message)

    def unwatched(self, peer: Peer, key: str) -> None:
        """Note the end of a watch."""
        self.uses.append((peer.agent_id, key, None))

    def confirmed(self, peer: Peer, key: str, version: int) -> None:
        """Note a confirmation."""
        self.uses.append((peer.agent_id, key, version))

    def reported(self, peer: Peer, report: Report) -> None:
        """Note a report."""
        self.reports.append((peer.agent_id, report))

    def witnessed(self, witness: bytes) -> None:
        """Note what an agent keeps of the ledger."""
        self.heard.append(witness)

    def checkpoint(self, seen: bytes) -> wire.Checkpoint | None:
        """Show what is newest, but not to whom keeps something else."""
        return None if seen else self.newest

    async def renew(self, peer: Peer, _csr: str) -> IssuedCertificate:
        """Give a certificate."""
        return IssuedCertificate(certificate=f"certificate for {peer.agent_id}", ca_chain=("ca",))


class Tally:
    """What sessions reported."""

    def __init__(self) -> None:
        self.pushes: list[str] = []
        self.confirmations: list[float] = []

    def pushed(self, kind: str) -> None:
        """Note a push."""
        self.pushes.append(kind)

    def confirmed(self, seconds: float) -> None:
        """Note a confirmation."""
        self.confirmations.append(seconds)


class Agent:
    """The other end: a connection in memory and the agent's side of the protocol."""

    def __init__(self) -> None:
        self.protocol = Session("agent")
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.paused = False
        self.taking = asyncio.Event()
        self.taking.set()
        self.session: AgentSession

    async def send(self, frame: bytes) -> None:
        """Take a frame from the session, as long as this agent takes any."""
        if self.closed.done():
            raise ConnectionResetError
        taking = asyncio.ensure_future(self.taking.wait())
        await asyncio.wait({taking, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        taking.cancel()
        if self.closed.done():
            raise ConnectionResetError
        self.frames.put_nowait(frame)

    def pause(self) -> None:
        """Be held."""
        self.paused = True

    def resume(self) -> None:
        """Be let go."""
        self.paused = False

    def close(self, code: int, reason: str) -> None:
        """See the session close the connection."""
        if not self.closed.done():
            self.closed.set_result((code, reason))

    async def say(self, message: wire.Message) -> None:
        """Send a message to the session."""
        self.session.deliver(self.protocol.send(message))

    async def hear(self, kind: type[M]) -> M:
        """Return the next message, which must be of this kind."""
        message = self.protocol.receive(await self.frames.get())
        assert isinstance(message, kind), message
        return message

    async def greet(self) -> wire.Welcome:
        """Say hello."""
        await self.say(wire.Hello(version="0", name="n"))
        return await self.hear(wire.Welcome)

    async def watch(self, *paths: str) -> wire.Watching:
        """Watch paths."""
        await self.say(wire.Watch(id=1, paths=paths))
        return await self.hear(wire.Watching)


class Hall:
    """A supervisor and what surrounds it."""

    def __init__(self) -> None:
        self.clock, self.house, self.tally = TurnedClock(), House(), Tally()
        self.gone: list[AgentSession] = []
        self.limits = Limits(inbox=4, watches=3, watched_text=1000)
        self.supervisor = SessionSupervisor(
            access=self.house,
            observer=self.tally,
            clock=self.clock,
            gateway="g1",
            limits=self.limits,
            gone=self.gone.append,
        )

    def connect(self, name: str = "agent-1", life: timedelta = timedelta(days=365)) -> Agent:
        """Connect an agent without a word."""
        agent = Agent()
        peer = Peer(agent_id=name, serial="01", address="192.0.2.7", not_before=START, not_after=START + life)
        agent.session = self.supervisor.begin(peer, agent)
        return agent

    async def welcome(self, name: str = "agent-1", life: timedelta = timedelta(days=365)) -> Agent:
        """Connect an agent and let it say hello."""
        agent = self.connect(name, life)
        await agent.greet()
        return agent

    def pass_time(self, agent: Agent, seconds: float) -> None:
        """Let time pass and the supervisor look at the agent's session."""
        self.clock.passed += seconds
        agent.session.look(self.clock.monotonic(), self.clock.now())


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    """Yield a running supervisor."""
    hall = Hall()
    hall.supervisor.start()
    yield hall
    await hall.supervisor.stop()
    assert len(hall.supervisor) == hall.supervisor.watches == 0


async def test_hello_is_answered_with_the_certificates_identity(hall: Hall) -> None:
    """Welcome names the agent that the certificate names, not the one that hello names."""
    agent = hall.connect("agent-7")
    await agent.say(wire.Hello(version="9", name="agent-1"))
    welcome = await agent.hear(wire.Welcome)
    assert (welcome.agent_id, welcome.gateway, welcome.server_time) == ("agent-7", "g1", START)


async def test_a_read_answers_with_the_secret(hall: Hall) -> None:
    """A permitted read brings data, version, generation and time."""
    agent = await hall.welcome()
    await agent.say(wire.Read(id=3, path="secrets/a", version=2))
    result = await agent.hear(wire.Result)
    assert result == wire.Result(
        id=3, path="secrets/a", data={"k": "v"}, version=2, generation=7, created_time="t"
    )


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("secrets/other", "permission_denied", "permission denied"),
        ("secrets/none", "not_found", "nothing there"),
    ],
)
async def test_a_refused_read_says_no_more_than_it_may(
    hall: Hall, path: str, code: str, message: str
) -> None:
    """The reason of a denial stays with Core."""
    agent = await hall.welcome()
    await agent.say(wire.Read(id=1, path=path))
    assert await agent.hear(wire.Error) == wire.Error(id=1, code=code, message=message)


async def test_a_secret_too_large_for_a_message_is_an_error(hall: Hall) -> None:
    """What does not fit into a frame is answered with too_large, and the session goes on."""
    hall.house.secrets["secrets/a"] = {"k": "v" * FROM_CORE_LIMIT}
    agent = await hall.welcome()
    await agent.say(wire.Read(id=1, path="secrets/a"))
    assert (await agent.hear(wire.Error)).code == "too_large"
    await agent.say(wire.Read(id=2, path="secrets/b"))
    await agent.hear(wire.Result)


async def test_a_change_is_told_to_watchers_only(hall: Hall) -> None:
    """A watched path is announced with version and sequence, never with its value."""
    watcher, other = await hall.welcome("agent-1"), await hall.welcome("agent-2")
    await watcher.watch("secrets/a")
    await other.watch("secrets/b")
    hall.supervisor.announcer.secret_changed("secret/a", 5, 40)
    changed = await watcher.hear(wire.Changed)
    assert changed == wire.Changed(path="secrets/a", version=5, sequence=40)
    hall.supervisor.announcer.secret_changed("secret/b", 2, 41)
    assert (await other.hear(wire.Changed)).path == "secrets/b"
    assert watcher.frames.empty()


async def test_a_watch_needs_the_right_to_read(hall: Hall) -> None:
    """Paths that may not be read are named as refused and are not announced."""
    agent = await hall.welcome()
    watching = await agent.watch("secrets/a", "secrets/other")
    assert watching.paths == ("secrets/a",)
    assert watching.refused == (wire.Refusal(path="secrets/other", code="permission_denied"),)
    hall.supervisor.announcer.secret_changed("secret/other", 1, 1)
    hall.supervisor.announcer.secret_changed("secret/a", 1, 2)
    assert (await agent.hear(wire.Changed)).sequence == 2


async def test_watches_are_bounded(hall: Hall) -> None:
    """More paths than an agent may watch are refused."""
    agent = await hall.welcome()
    hall.house.allowed = {f"secrets/{n}" for n in range(5)}
    watching = await agent.watch(*(f"secrets/{n}" for n in range(5)))
    assert len(watching.paths) == hall.limits.watches
    assert {refusal.code for refusal in watching.refused} == {"too_many_requests"}


async def test_what_is_watched_already_needs_no_room(hall: Hall) -> None:
    """An agent that watches all it may is told again that it does, and may exchange one for another."""
    agent = await hall.welcome()
    hall.house.allowed = {f"secrets/{n}" for n in range(5)}
    full = tuple(f"secrets/{n}" for n in range(hall.limits.watches))
    await agent.watch(*full)
    again = await agent.watch("secrets/4", *full)
    assert set(again.paths) == set(full)
    assert again.refused == (wire.Refusal(path="secrets/4", code="too_many_requests"),)
    await agent.say(wire.Unwatch(paths=full[:1]))
    assert (await agent.watch("secrets/4")).paths == ("secrets/4",)


async def test_the_length_of_watched_paths_is_bounded(hall: Hall) -> None:
    """Long paths use up the room of many short ones, until they are watched no more."""
    agent = await hall.welcome()
    long = "secrets/" + "x" * (hall.limits.watched_text // 2)
    hall.house.allowed.add(long)
    assert (await agent.watch(long)).paths == (long,)
    assert (await agent.watch("secrets/a")).refused[0].code == "too_many_requests"
    await agent.say(wire.Unwatch(paths=(long,)))
    assert (await agent.watch("secrets/a")).paths == ("secrets/a",)


async def test_agents_hear_that_there_are_keys_again(hall: Hall) -> None:
    """After unsealing every agent is told to ask again for what was refused."""
    agents = [await hall.welcome(f"agent-{n}") for n in range(2)]
    hall.supervisor.announcer.unsealed()
    for agent in agents:
        await agent.hear(wire.PolicyChanged)


async def test_unwatch_ends_announcements(hall: Hall) -> None:
    """After unwatch the path is announced no more."""
    agent = await hall.welcome()
    await agent.watch("secrets/a", "secrets/b")
    await agent.say(wire.Unwatch(paths=("secrets/a", "secrets/never")))
    await agent.say(wire.Read(id=9, path="secrets/b"))
    await agent.hear(wire.Result)
    assert hall.supervisor.watches == 1
    hall.supervisor.announcer.secret_changed("secret/a", 2, 1)
    hall.supervisor.announcer.secret_changed("secret/b", 2, 2)
    assert (await agent.hear(wire.Changed)).path == "secrets/b"


async def test_a_slow_agent_is_told_the_newest_state_and_not_the_history(hall: Hall) -> None:
    """Changes while an agent takes nothing collapse to one announcement a path."""
    agent = await hall.welcome()
    await agent.watch("secrets/a", "secrets/b")
    agent.taking.clear()
    for number in range(1, 1001):
        agent.session.change("secret/b", number, number)
        agent.session.change("secret/a", number, number)
        await asyncio.sleep(0)
    agent.taking.set()
    heard = [await agent.hear(wire.Changed) for _ in range(3)]
    assert [(c.path, c.version) for c in heard[-2:]] == [("secrets/a", 1000), ("secrets/b", 1000)]
    assert agent.frames.empty()


async def test_a_full_inbox_holds_the_agent(hall: Hall) -> None:
    """An agent that asks faster than it is answered is held in its own socket, then let go."""
    agent = await hall.welcome()
    hall.house.gate = asyncio.Event()
    for number in range(1, hall.limits.inbox + 1):
        assert not agent.paused
        await agent.say(wire.Read(id=number, path="secrets/a"))
    assert agent.paused
    hall.house.gate.set()
    answered = [(await agent.hear(wire.Result)).id for _ in range(hall.limits.inbox)]
    assert answered == list(range(1, hall.limits.inbox + 1))
    assert not agent.paused


async def test_an_agent_that_takes_nothing_is_closed(hall: Hall) -> None:
    """A frame that waits too long ends the connection."""
    agent = await hall.welcome()
    await agent.watch("secrets/a")
    agent.taking.clear()
    hall.supervisor.announcer.secret_changed("secret/a", 2, 1)
    await until(lambda: agent.session._sending_since is not None)
    hall.pass_time(agent, hall.limits.slow + 1)
    assert (await agent.closed)[0] == CloseCode.TOO_SLOW


async def test_revocation_closes_the_connection_even_while_it_is_busy(hall: Hall) -> None:
    """A revoked agent is cut off although its session waits for a read."""
    agent = await hall.welcome()
    hall.house.gate = asyncio.Event()
    await agent.say(wire.Read(id=1, path="secrets/a"))
    hall.house.revoked.add("agent-1")
    hall.supervisor.announcer.authority_changed("agents/agent-1")
    assert (await agent.closed)[0] == CloseCode.REVOKED
    hall.house.gate.set()


async def test_a_revoked_agent_is_not_welcome(hall: Hall) -> None:
    """A revoked agent's new connection is closed before welcome."""
    hall.house.revoked.add("agent-1")
    agent = hall.connect()
    assert (await agent.closed)[0] == CloseCode.REVOKED
    assert agent.frames.empty()


async def test_a_hello_does_not_overtake_admission(hall: Hall) -> None:
    """A revoked agent that says hello and asks at once gets neither welcome nor secret."""
    hall.house.revoked.add("agent-1")
    agent = hall.connect()
    await agent.say(wire.Hello(version="0", name="n"))
    assert (await agent.closed)[0] == CloseCode.REVOKED
    assert agent.frames.empty()


async def test_an_agent_that_cannot_be_checked_is_asked_to_come_back(hall: Hall) -> None:
    """Without a database a new connection is put off, with a hint."""
    hall.house.failure = Unavailable("")
    agent = hall.connect()
    code, reason = await agent.closed
    assert code == CloseCode.TRY_AGAIN_LATER
    assert "retry in" in reason


async def test_changed_rights_end_watches_and_are_told(hall: Hall) -> None:
    """When a policy goes, what it allowed is no longer announced, and the agent hears of it."""
    agent, other = await hall.welcome("agent-1"), await hall.welcome("agent-2")
    await agent.watch("secrets/a", "secrets/b")
    hall.house.allowed.discard("secrets/a")
    hall.supervisor.announcer.authority_changed("policies/other")
    hall.supervisor.announcer.authority_changed("policies/web")
    await agent.hear(wire.PolicyChanged)
    await other.hear(wire.PolicyChanged)
    hall.supervisor.announcer.secret_changed("secret/a", 2, 1)
    hall.supervisor.announcer.secret_changed("secret/b", 2, 2)
    assert (await agent.hear(wire.Changed)).path == "secrets/b"
    assert hall.tally.pushes.count("policy_changed") == 2


async def test_rights_that_cannot_be_checked_are_checked_again(hall: Hall) -> None:
    """A check that fails for want of a database is repeated."""
    agent = await hall.welcome()
    hall.house.failure = Unavailable("")
    hall.supervisor.announcer.authority_changed("agents/agent-1")
    await until(lambda: agent.session.doubtful)
    hall.house.failure = None
    await agent.hear(wire.PolicyChanged)
    assert not agent.session.doubtful


async def test_a_hole_in_the_stream_of_changes_announces_everything(hall: Hall) -> None:
    """When changes may have been missed every watched path is announced without a version."""
    agent = await hall.welcome()
    await agent.watch("secrets/a", "secrets/b")
    hall.supervisor.announcer.lost_track()
    await agent.hear(wire.PolicyChanged)
    heard = {(c.path, c.version) for c in [await agent.hear(wire.Changed), await agent.hear(wire.Changed)]}
    assert heard == {("secrets/a", 0), ("secrets/b", 0)}


async def test_a_newer_connection_replaces_the_older(hall: Hall) -> None:
    """One agent has one session: the newest; the older one's watches are gone."""
    older = await hall.welcome()
    await older.watch("secrets/a")
    newer = await hall.welcome()
    assert (await older.closed)[0] == CloseCode.REPLACED
    assert hall.supervisor.find("agent-1") is newer.session
    assert hall.supervisor.watches == 0
    await newer.say(wire.Read(id=1, path="secrets/a"))
    await newer.hear(wire.Result)
    assert hall.gone == [older.session]
    assert hall.supervisor.find("agent-1") is newer.session


async def test_a_refused_connection_replaces_nothing(hall: Hall) -> None:
    """A connection that is not admitted leaves the agent's session alone."""
    good = await hall.welcome()
    hall.house.revoked.add("agent-1")
    bad = hall.connect()
    assert (await bad.closed)[0] == CloseCode.REVOKED
    await until(lambda: hall.gone == [bad.session])
    assert hall.supervisor.find("agent-1") is good.session
    assert not good.session.ended


async def test_signs_of_life_do_not_stand_for_hello(hall: Hall) -> None:
    """A connection that only pings is ended like one that says nothing."""
    agent = hall.connect()
    hall.pass_time(agent, hall.limits.hello - 1)
    agent.session.hear()
    hall.pass_time(agent, 2)
    assert (await agent.closed)[0] == CloseCode.SILENT


async def test_a_full_buffer_ends_the_connection_although_nothing_is_being_said(hall: Hall) -> None:
    """What the session did not send itself may wait no longer than what it did."""
    agent = await hall.welcome()
    agent.session.stall(stalled=True)
    hall.pass_time(agent, hall.limits.slow + 1)
    assert (await agent.closed)[0] == CloseCode.TOO_SLOW
    other = await hall.welcome()
    other.session.stall(stalled=True)
    other.session.stall(stalled=False)
    hall.pass_time(other, hall.limits.slow + 1)
    assert not other.session.ended


async def test_silence_is_pinged_and_a_pong_counts_as_life(hall: Hall) -> None:
    """A quiet agent is pinged; one that answers stays, one that does not is closed."""
    agent = await hall.welcome()
    hall.pass_time(agent, hall.limits.ping_after + 1)
    await agent.hear(wire.Ping)
    await agent.say(wire.Pong())
    hall.pass_time(agent, hall.limits.ping_after - 1)
    assert not agent.session.ended
    hall.pass_time(agent, hall.limits.silent)
    assert (await agent.closed)[0] == CloseCode.SILENT


async def test_the_certificate_is_reminded_of_and_ends_the_connection(hall: Hall) -> None:
    """Due certificates are announced once; at their end the connection ends."""
    agent = await hall.welcome(life=timedelta(seconds=30))
    hall.pass_time(agent, 21)
    assert (await agent.hear(wire.CertificateDue)).not_after == START + timedelta(seconds=30)
    await agent.say(wire.RenewCertificate(id=1, csr="csr"))
    assert (await agent.hear(wire.Certificate)).certificate == "certificate for agent-1"
    hall.pass_time(agent, 5)
    assert agent.frames.empty()
    hall.pass_time(agent, 5)
    assert (await agent.closed)[0] == CloseCode.CERTIFICATE_EXPIRED


async def test_a_protocol_violation_closes_that_connection_only(hall: Hall) -> None:
    """Bad frames end the session that sent them."""
    good, bad = await hall.welcome("agent-1"), await hall.welcome("agent-2")
    bad.session.deliver(b'{"type":"issue"}')
    assert (await bad.closed)[0] == CloseCode.PROTOCOL
    await good.say(wire.Read(id=1, path="secrets/a"))
    await good.hear(wire.Result)


async def test_a_crash_is_survived_and_a_crash_loop_is_not(hall: Hall) -> None:
    """After a crash the session goes on with its watches; one that keeps crashing is closed."""
    agent, other = await hall.welcome("agent-1"), await hall.welcome("agent-2")
    await agent.watch("secrets/a")
    hall.house.failure = ZeroDivisionError("a defect")
    for number in range(1, 4):
        await agent.say(wire.Read(id=number, path="secrets/a"))
        assert (await agent.hear(wire.Error)).code == "internal"
        await agent.hear(wire.PolicyChanged)
        hall.supervisor.announcer.secret_changed("secret/a", number, number)
        await agent.hear(wire.Changed)
    await agent.say(wire.Read(id=9, path="secrets/a"))
    assert (await agent.closed)[0] == CloseCode.INTERNAL
    hall.house.failure = None
    await other.say(wire.Read(id=1, path="secrets/a"))
    await other.hear(wire.Result)


async def test_confirmations_are_timed(hall: Hall) -> None:
    """The time from a push to its confirmation is observed once."""
    agent = await hall.welcome()
    await agent.watch("secrets/a")
    hall.supervisor.announcer.secret_changed("secret/a", 2, 1)
    await agent.hear(wire.Changed)
    hall.clock.passed += 0.25
    await agent.say(wire.Confirm(path="secrets/a", version=2))
    await agent.say(wire.Confirm(path="secrets/a", version=2))
    await agent.say(wire.Read(id=1, path="secrets/a"))
    await agent.hear(wire.Result)
    assert hall.tally.confirmations == [0.25]


async def test_of_a_report_a_session_keeps_numbers(hall: Hall) -> None:
    """Who reports a failing file is counted until it reports that all is well; texts are passed on."""
    agent, other = await hall.welcome("agent-1"), await hall.welcome("agent-2")
    good = wire.TemplateStatus(destination="/run/a", rendered=True)
    stale = wire.TemplateStatus(destination="/run/b", rendered=True, error="x" * 512)
    absent = wire.TemplateStatus(destination="/run/c", rendered=False)
    await report(agent, wire.Status(cached=4, templates=(good, stale, absent)))
    await report(other, wire.Status(cached=1, templates=(good,)))
    assert agent.session.condition == Condition(cached=4, files=3, failing=2)
    assert hall.supervisor.failing == 1
    who, told = hall.house.reports[0]
    assert (who, told.files, told.failing) == ("agent-1", 3, 2)
    assert told.failures == (
        Failure(destination="/run/b", error="x" * 512),
        Failure(destination="/run/c", error=""),
    )
    await report(agent, wire.Status(cached=4, templates=(good,)))
    assert hall.supervisor.failing == 0


def test_what_a_report_may_hold() -> None:
    """However much an agent says, and whatever, some files are named, in printable characters."""
    path = "/run/\x1b[2J\u202e\x00" + "y" * 900
    evil = wire.TemplateStatus(destination=path, rendered=False, error="\x07" * 512)
    told = report_of(wire.Status(cached=0, templates=(evil,) * 256))
    assert (told.files, told.failing, len(told.failures)) == (256, 256, NAMED)
    text = msgspec.json.encode(told).decode()
    assert json.loads(text)["failures"][0]["destination"].startswith("/run/\ufffd[2J\ufffd\ufffdy")
    assert all(one.destination.isprintable() and len(one.destination) == 512 for one in told.failures)
    assert len(text) < 64_000


async def report(agent: Agent, status: wire.Status) -> None:
    """Send a report and wait until it has been taken."""
    await agent.say(status)
    await agent.say(wire.Read(id=1, path="secrets/a"))
    await agent.hear(wire.Result)


async def test_a_lost_connection_ends_its_session(hall: Hall) -> None:
    """When the connection is gone the session, its watches and its task are gone."""
    agent = await hall.welcome()
    await agent.watch("secrets/a")
    agent.session.hang_up()
    await until(lambda: len(hall.supervisor) == 0)
    assert hall.gone == [agent.session]
    assert hall.supervisor.watches == 0


async def test_draining_asks_agents_to_move_and_waits_for_them(hall: Hall) -> None:
    """Every agent is told where to go; drain returns when they have left."""
    agents = [await hall.welcome(f"agent-{n}") for n in range(3)]
    draining = asyncio.create_task(hall.supervisor.drain(("wss://b:4665",), 60.0))
    for agent in agents:
        assert await agent.hear(wire.Drain) == wire.Drain(urls=("wss://b:4665",), within=60.0)
        assert not draining.done()
        agent.session.hang_up()
    await draining


async def test_stopping_ends_even_a_session_that_waits_for_ever(hall: Hall) -> None:
    """Stop closes all connections and does not wait for a read that never ends."""
    agent = await hall.welcome()
    hall.house.gate = asyncio.Event()
    await agent.say(wire.Read(id=1, path="secrets/a"))
    await until(lambda: hall.house.reads == 1)
    await hall.supervisor.stop(grace=0.01)
    assert (await agent.closed)[0] == CloseCode.DRAINED
    assert not hall.supervisor.healthy


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds; the test's own limit bounds it."""
    while not holds():  # noqa: ASYNC110 - what holds is state of the code under test, not an event
        await asyncio.sleep(0)


async def test_an_agent_is_told_of_an_applications_rights(hall: Hall) -> None:
    """What is bound to an application is watched from the first read for it."""
    agent = await hall.welcome()
    row = "bindings/application/web"
    hall.supervisor.announcer.authority_changed(row)
    await agent.say(wire.Read(id=1, path="secrets/a", application="web"))
    await agent.hear(wire.Result)
    hall.supervisor.announcer.authority_changed(row)
    await agent.hear(wire.PolicyChanged)
    hall.house.without.add("web")
    await agent.say(wire.Read(id=2, path="secrets/a", application="web"))
    assert (await agent.hear(wire.Error)).code == "permission_denied"
    await agent.say(wire.Read(id=3, path="secrets/a"))
    await agent.hear(wire.Result)
    # Still watched after rights were looked up again.
    hall.supervisor.announcer.authority_changed(row)
    await agent.hear(wire.PolicyChanged)


async def test_an_application_whose_rights_cannot_be_watched_is_not_served(hall: Hall) -> None:
    """While its rights cannot be looked up a read for it fails, and works once they can."""
    agent = await hall.welcome()
    hall.house.failure = Unavailable("no database")
    await agent.say(wire.Read(id=1, path="secrets/a", application="web"))
    assert (await agent.hear(wire.Error)).code == "unavailable"
    assert hall.house.reads == 0
    hall.house.failure = None
    await agent.say(wire.Read(id=2, path="secrets/a", application="web"))
    await agent.hear(wire.Result)


async def test_a_connection_names_so_many_applications(hall: Hall) -> None:
    """An agent that makes up names without end is refused, and goes on with those that it had."""
    agent = await hall.welcome()
    for number in range(1, wire.MAX_APPLICATIONS + 1):
        await agent.say(wire.Read(id=number, path="secrets/a", application=f"app-{number}"))
        await agent.hear(wire.Result)
    await agent.say(wire.Read(id=900, path="secrets/a", application="one-more"))
    assert (await agent.hear(wire.Error)).code == "too_many_requests"
    await agent.say(wire.Read(id=901, path="secrets/a", application="app-1"))
    await agent.hear(wire.Result)
