"""The agent protocol under arbitrary input and arbitrary, legal conversations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from secrethub.wire.codec import ProtocolViolation
from secrethub.wire.messages import (
    Certificate,
    Changed,
    Error,
    Hello,
    Message,
    Ping,
    Pong,
    Read,
    RenewCertificate,
    Result,
    Watch,
    Watching,
    Welcome,
)
from secrethub.wire.session import Role, Session

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TYPES = [
    *("hello", "read", "watch", "unwatch", "status", "confirm", "renew_certificate", "pong", "welcome"),
    *("result", "error", "watching", "changed", "policy_changed", "certificate_due", "certificate"),
    *("drain", "ping", "issue", ""),
]
FIELDS = ["id", "path", "paths", "version", "name", "csr", "data", "code", "cached", "templates", "urls"]

words = st.sampled_from(["", "a", "secrets/a", "Zürich", "\x00", "2026-03-01T12:00:00Z"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)
near_messages = st.builds(
    lambda tag, rest: {"type": tag, **rest},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
)


@settings(max_examples=400)
@given(role=st.sampled_from(["agent", "core"]), frames=st.lists(st.binary(max_size=200), max_size=4))
def test_arbitrary_bytes_only_ever_violate(role: Role, frames: list[bytes]) -> None:
    """Whatever bytes arrive, the session answers with a violation and closes, never otherwise."""
    session = Session(role)
    for frame in frames:
        try:
            session.receive(frame)
        except ProtocolViolation:
            assert session.state == "closed"


@settings(max_examples=400)
@given(role=st.sampled_from(["agent", "core"]), values=st.lists(near_messages, min_size=1, max_size=6))
def test_nearly_messages_only_ever_violate(role: Role, values: list[dict[str, Any]]) -> None:
    """JSON that looks like messages is taken or violates; what was taken encodes to the same again."""
    session = Session(role)
    session.state = "open"
    for value in values:
        try:
            message = session.receive(msgspec.json.encode(value))
        except ProtocolViolation:
            assert session.state == "closed"
            return
        again = msgspec.json.decode(msgspec.json.encode(message), type=type(message))
        assert again == message


class Conversation(RuleBasedStateMachine):
    """Two ends that keep to the rules, with frames delayed in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.agent, self.core = Session("agent"), Session("core")
        self.to_core: list[bytes] = [self.agent.send(Hello(version="1", name="n"))]
        self.to_agent: list[bytes] = []
        self.unanswered: dict[int, Message] = {}
        self.next_id = 1

    @precondition(lambda self: self.to_core)
    @rule()
    def core_receives(self) -> None:
        """Core takes the next frame and remembers what it owes."""
        message = self.core.receive(self.to_core.pop(0))
        if isinstance(message, Hello):
            self.to_agent.append(self.core.send(Welcome(agent_id="a", server_time=NOW, gateway="g")))
        elif isinstance(message, Read | Watch | RenewCertificate):
            self.unanswered[message.id] = message

    @precondition(lambda self: self.to_agent)
    @rule()
    def agent_receives(self) -> None:
        """The agent takes the next frame."""
        message = self.agent.receive(self.to_agent.pop(0))
        if isinstance(message, Ping):
            self.to_core.append(self.agent.send(Pong()))

    @precondition(lambda self: self.agent.state == "open" and self.agent.in_flight < 10)
    @rule(kind=st.sampled_from(["read", "watch", "renew"]))
    def agent_asks(self, kind: str) -> None:
        """The agent sends a request under an id that is free."""
        number, self.next_id = self.next_id, self.next_id % 12 + 1
        if number in self.agent.requests_in_flight():
            return
        message: Message
        if kind == "read":
            message = Read(id=number, path="secrets/a")
        elif kind == "watch":
            message = Watch(id=number, paths=("secrets/a",))
        else:
            message = RenewCertificate(id=number, csr="c")
        self.to_core.append(self.agent.send(message))

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data(), refuse=st.booleans())
    def core_answers(self, data: st.DataObject, refuse: bool) -> None:
        """Core answers any of the requests it owes, in any order."""
        number = data.draw(st.sampled_from(sorted(self.unanswered)))
        asked = self.unanswered.pop(number)
        answer: Message
        if refuse:
            answer = Error(id=number, code="permission_denied", message="")
        elif isinstance(asked, Read):
            answer = Result(id=number, path=asked.path, data={}, version=1, generation=1, created_time="")
        elif isinstance(asked, Watch):
            answer = Watching(id=number, paths=asked.paths)
        else:
            answer = Certificate(id=number, certificate="c", ca_chain=())
        self.to_agent.append(self.core.send(answer))

    @precondition(lambda self: self.core.state == "open")
    @rule(ping=st.booleans())
    def core_pushes(self, ping: bool) -> None:
        """Core pushes at any time."""
        message = Ping(server_time=NOW) if ping else Changed(path="secrets/a", version=1, sequence=1)
        self.to_agent.append(self.core.send(message))

    @invariant()
    def nobody_is_accused(self) -> None:
        """Legal conversations never violate, and both ends count alike."""
        assert "closed" not in {self.agent.state, self.core.state}
        assert self.core.in_flight == len(self.unanswered)
        assert self.agent.in_flight >= self.core.in_flight


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestConversation = Conversation.TestCase
