"""The agent protocol: what each end may say when, and what it makes of anything else."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from secrethub.errors import TooLarge
from secrethub.wire import codec
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.codec import ProtocolViolation
from secrethub.wire.messages import (
    MAX_PATHS,
    AnswerOrder,
    Certificate,
    CertificateDue,
    Changed,
    Confirm,
    Drain,
    Error,
    Hello,
    Message,
    Noted,
    OrderDue,
    Ordered,
    Ping,
    PolicyChanged,
    Pong,
    Read,
    Refusal,
    RenewCertificate,
    Result,
    Status,
    TakeOrder,
    TemplateStatus,
    Unwatch,
    Watch,
    Watching,
    Welcome,
    kind_of,
)
from secrethub.wire.session import MAX_IN_FLIGHT, Session

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HELLO = Hello(version="0.1.0", name="web-1")
WELCOME = Welcome(agent_id="a", server_time=NOW, gateway="g")
ORDER = "00000000-0000-0000-0000-000000000000/1"
RESULT = Result(id=1, path="secrets/a", data={"k": "v"}, version=1, generation=1, created_time="")

AFTER_WELCOME: list[Message] = [
    Read(id=1, path="secrets/a"),
    Read(id=1, path="secrets/a", version=3),
    Watch(id=1, paths=("secrets/a", "secrets/b")),
    Unwatch(paths=("secrets/a",)),
    Status(cached=3, templates=(TemplateStatus(destination="/run/x", rendered=False, error="no file"),)),
    Confirm(path="secrets/a", version=2),
    RenewCertificate(id=1, csr="-----BEGIN CERTIFICATE REQUEST-----"),
    TakeOrder(id=1, held=(ORDER,)),
    AnswerOrder(id=1, order=ORDER, step="undo", attempt=2, outcome="again", said="busy"),
    Pong(),
]
PUSHES: list[Message] = [
    Changed(path="secrets/a", version=2, sequence=9),
    PolicyChanged(),
    OrderDue(),
    CertificateDue(not_after=NOW),
    Drain(urls=("wss://b:4665",), within=30.0),
    Ping(server_time=NOW),
]


def pair() -> tuple[Session, Session]:
    """Return an agent's and Core's session in the open state."""
    agent, core = Session("agent"), Session("core")
    core.receive(agent.send(HELLO))
    agent.receive(core.send(WELCOME))
    return agent, core


@pytest.mark.parametrize("message", AFTER_WELCOME, ids=kind_of)
def test_client_messages_arrive_as_sent(message: Message) -> None:
    """Every message of a client arrives at Core as it was sent."""
    agent, core = pair()
    assert core.receive(agent.send(message)) == message


@pytest.mark.parametrize("message", PUSHES, ids=kind_of)
def test_pushes_arrive_as_sent(message: Message) -> None:
    """Every push of Core arrives at the agent as it was sent."""
    agent, core = pair()
    assert agent.receive(core.send(message)) == message


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (Read(id=1, path="secrets/a"), RESULT),
        (Read(id=1, path="secrets/a"), Error(id=1, code="not_found", message="nothing there")),
        (
            Watch(id=1, paths=("secrets/a", "secrets/b")),
            Watching(
                id=1,
                paths=("secrets/a",),
                refused=(Refusal(path="secrets/b", code="permission_denied"),),
                sequence=4,
            ),
        ),
        (RenewCertificate(id=1, csr="…"), Certificate(id=1, certificate="…", ca_chain=("…",))),
        (TakeOrder(id=1), Ordered(id=1)),
        (AnswerOrder(id=1, order=ORDER, step="create", attempt=1, outcome="done"), Noted(id=1)),
    ],
    ids=["read", "read-refused", "watch", "renew", "take-order", "answer-order"],
)
def test_an_answer_frees_its_id(request_: Message, answer: Message) -> None:
    """An answered request's id may be used again, at both ends."""
    agent, core = pair()
    for _ in range(2):
        assert core.receive(agent.send(request_)) == request_
        assert agent.in_flight == core.in_flight == 1
        assert agent.receive(core.send(answer)) == answer
        assert agent.in_flight == core.in_flight == 0


@pytest.mark.parametrize("message", AFTER_WELCOME, ids=kind_of)
def test_nothing_precedes_hello(message: Message) -> None:
    """Core refuses whatever comes before hello and closes the session."""
    core = Session("core")
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(message))
    assert core.state == "closed"


@pytest.mark.parametrize("message", AFTER_WELCOME, ids=kind_of)
def test_a_client_waits_for_welcome(message: Message) -> None:
    """Between hello and welcome a client sends nothing, and Core refuses it."""
    agent, core = Session("agent"), Session("core")
    core.receive(agent.send(HELLO))
    with pytest.raises(ProtocolViolation):
        agent.send(message)
    assert agent.state == "greeted"
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(message))


@pytest.mark.parametrize("message", [*PUSHES, RESULT], ids=kind_of)
def test_nothing_precedes_welcome(message: Message) -> None:
    """An agent refuses whatever comes before welcome, and Core does not send it."""
    agent, core = Session("agent"), Session("core")
    core.receive(agent.send(HELLO))
    with pytest.raises(ProtocolViolation):
        core.send(message)
    with pytest.raises(ProtocolViolation):
        agent.receive(msgspec.json.encode(message))
    assert (core.state, agent.state) == ("greeted", "closed")


def test_welcome_without_hello_is_refused() -> None:
    """An agent that said nothing is not welcome, and a second welcome is refused."""
    with pytest.raises(ProtocolViolation):
        Session("core").send(WELCOME)
    with pytest.raises(ProtocolViolation):
        Session("agent").receive(msgspec.json.encode(WELCOME))
    agent, _ = pair()
    with pytest.raises(ProtocolViolation):
        agent.receive(msgspec.json.encode(WELCOME))


def test_hello_comes_once() -> None:
    """A second hello is refused in every state."""
    core = Session("core")
    core.receive(msgspec.json.encode(HELLO))
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(HELLO))
    _, core = pair()
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(HELLO))


def test_an_id_in_flight_is_not_reused() -> None:
    """A request with the id of an unanswered one is refused by both ends."""
    agent, core = pair()
    core.receive(agent.send(Read(id=7, path="secrets/a")))
    again = Watch(id=7, paths=("secrets/b",))
    with pytest.raises(ProtocolViolation):
        agent.send(again)
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(again))


def test_requests_in_flight_are_bounded() -> None:
    """One request more than the limit is refused by both ends."""
    agent, core = pair()
    for number in range(1, MAX_IN_FLIGHT + 1):
        core.receive(agent.send(Read(id=number, path="secrets/a")))
    one_more = Read(id=MAX_IN_FLIGHT + 1, path="secrets/a")
    with pytest.raises(ProtocolViolation):
        agent.send(one_more)
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(one_more))


@pytest.mark.parametrize("answer", [RESULT, Error(id=1, code="x", message="")], ids=kind_of)
def test_an_answer_needs_its_request(answer: Message) -> None:
    """An answer that nobody asked for is refused by both ends."""
    agent, core = pair()
    with pytest.raises(ProtocolViolation):
        core.send(answer)
    with pytest.raises(ProtocolViolation):
        agent.receive(msgspec.json.encode(answer))


def test_an_answer_fits_its_request() -> None:
    """A watch is not answered by a result."""
    agent, core = pair()
    core.receive(agent.send(Watch(id=1, paths=("secrets/a",))))
    with pytest.raises(ProtocolViolation):
        core.send(RESULT)
    with pytest.raises(ProtocolViolation):
        agent.receive(msgspec.json.encode(RESULT))


def test_each_end_keeps_to_its_own_messages() -> None:
    """Neither end sends or accepts the other's messages."""
    agent, core = pair()
    with pytest.raises(ProtocolViolation):
        agent.send(PolicyChanged())
    with pytest.raises(ProtocolViolation):
        core.send(Pong())
    with pytest.raises(ProtocolViolation):
        agent.receive(msgspec.json.encode(Pong()))
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(PolicyChanged()))


def test_oversized_frames_are_refused() -> None:
    """A frame above the limit closes the session; one to be sent leaves it as it was."""
    agent, core = pair()
    with pytest.raises(ProtocolViolation) as caught:
        core.receive(b" " * (codec.TO_CORE_LIMIT + 1))
    assert caught.value.close_code == CloseCode.TOO_BIG
    with pytest.raises(ProtocolViolation):
        agent.receive(b" " * (codec.FROM_CORE_LIMIT + 1))

    agent, core = pair()
    core.receive(agent.send(Read(id=1, path="secrets/a")))
    with pytest.raises(TooLarge):
        core.send(msgspec.structs.replace(RESULT, data={"k": "v" * codec.FROM_CORE_LIMIT}))
    assert 1 in core.requests_in_flight()
    agent.receive(core.send(Error(id=1, code="too_large", message="")))
    with pytest.raises(TooLarge):
        agent.send(Watch(id=2, paths=("ü" * 1000,) * MAX_PATHS))
    assert 2 not in agent.requests_in_flight()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"type":"issue"}',
        b'{"type":"pong","more":1}',
        b'{"type":"read","id":true,"path":"secrets/a"}',
        b'{"type":"read","id":"1","path":"secrets/a"}',
        b'{"type":"read","id":0,"path":"secrets/a"}',
        b'{"type":"read","id":9007199254740992,"path":"secrets/a"}',
        b'{"type":"read","id":1,"path":""}',
        b'{"type":"read","id":1,"path":"secrets/a","version":0}',
        b'{"type":"read","id":1,"path":"secrets/a","version":1.5}',
        b'{"type":"read","path":"secrets/a"}',
        b'{"type":"read","id":1,"path":"secrets/a","application":""}',
        b'{"type":"read","id":1,"path":"secrets/a","application":"a/b"}',
        b'{"type":"read","id":1,"path":"secrets/a","application":"a\\n"}',
        b'{"type":"read","id":1,"path":"secrets/a","application":"' + b"a" * 65 + b'"}',
        b'{"type":"watch","id":1,"paths":[]}',
        b'{"type":"watch","id":1,"paths":"secrets/a"}',
        b'{"type":"pong"}{"type":"pong"}',
        b'{"x":' + b"[" * 100_000,
        b'{"type":"pong","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_malformed_frames_are_refused(frame: bytes) -> None:
    """Anything but a well-typed message of the client closes Core's session."""
    _, core = pair()
    with pytest.raises(ProtocolViolation):
        core.receive(frame)
    assert core.state == "closed"


def test_a_closed_session_takes_and_gives_nothing() -> None:
    """After close neither direction works and nothing is in flight."""
    agent, core = pair()
    core.receive(agent.send(Read(id=1, path="secrets/a")))
    for session in (agent, core):
        session.close()
        assert session.in_flight == 0
    with pytest.raises(ProtocolViolation):
        agent.send(Pong())
    with pytest.raises(ProtocolViolation):
        core.send(PolicyChanged())
    with pytest.raises(ProtocolViolation):
        core.receive(msgspec.json.encode(Pong()))


def test_a_result_hides_its_data() -> None:
    """The text form of a result shows no secret."""
    shown = repr(msgspec.structs.replace(RESULT, data={"password": "canary"}))
    assert "canary" not in shown
    assert "canary" not in f"{[RESULT, msgspec.structs.replace(RESULT, data={'p': 'canary'})]}"


def test_a_read_for_nobody_names_nobody() -> None:
    """A read without an application is the frame that it was before there were any."""
    agent, core = pair()
    assert agent.send(Read(id=1, path="secrets/a")) == b'{"type":"read","id":1,"path":"secrets/a"}'
    asked = Read(id=2, path="secrets/a", application="web.1")
    assert core.receive(agent.send(asked)) == asked
