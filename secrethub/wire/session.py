"""The agent protocol's rules as a state machine without IO; both ends drive the same class.

::

    opening ──hello──▶ greeted ──welcome──▶ open ──close() or a violation──▶ closed

* ``hello`` comes first and once, ``welcome`` answers it; nothing else passes before both.
* An id names at most one request in flight; only Core answers, once, with the answer's own type.
* At most :data:`MAX_IN_FLIGHT` requests are in flight.

Frames in, messages out: :meth:`Session.receive`. Messages in, frames out: :meth:`Session.send`.
A violation by the other end closes the session and says with which code to close the connection;
a violation by this end is a mistake of the caller and leaves the session as it was.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from secrethub.wire import codec
from secrethub.wire.close_codes import CloseCode
from secrethub.wire.codec import ProtocolViolation
from secrethub.wire.messages import (
    AnswerOrder,
    Certificate,
    ClientMessage,
    CoreMessage,
    Error,
    Hello,
    Issue,
    Issued,
    Message,
    Noted,
    Ordered,
    Read,
    RenewCertificate,
    Renewed,
    RenewLease,
    Result,
    RevokeLease,
    TakeOrder,
    Watch,
    Watching,
    Welcome,
    kind_of,
)

Role: TypeAlias = Literal["agent", "core"]
State: TypeAlias = Literal["opening", "greeted", "open", "closed"]
Request: TypeAlias = (
    Read | Watch | RenewCertificate | Issue | RenewLease | RevokeLease | TakeOrder | AnswerOrder
)

MAX_IN_FLIGHT: Final = 256
"""Requests a client may have unanswered."""

_ANSWER_TO: Final[dict[type[Message], type[Message]]] = {
    Read: Result,
    Watch: Watching,
    RenewCertificate: Certificate,
    Issue: Issued,
    RenewLease: Renewed,
    RevokeLease: Noted,
    TakeOrder: Ordered,
    AnswerOrder: Noted,
}
_ANSWERS: Final = (Result, Watching, Certificate, Issued, Renewed, Ordered, Noted)


class Session:
    """One end of a conversation.

    Attributes:
        role: which end this is.
        state: ``opening``, ``greeted`` (hello passed), ``open`` (welcome passed) or ``closed``.
    """

    __slots__ = ("_in_flight", "role", "state")

    def __init__(self, role: Role) -> None:
        self.role: Final[Role] = role
        self.state: State = "opening"
        self._in_flight: dict[int, type[Message]] = {}

    @property
    def in_flight(self) -> int:
        """Requests that have no answer yet."""
        return len(self._in_flight)

    def requests_in_flight(self) -> tuple[int, ...]:
        """Return the ids of the requests that have no answer yet, oldest first."""
        return tuple(self._in_flight)

    def receive(self, frame: bytes) -> Message:
        """Take a frame from the other end.

        Returns:
            The message: a :data:`ClientMessage` for Core, a :data:`CoreMessage` for an agent.

        Raises:
            ProtocolViolation: the other end broke the protocol. The session is closed.
        """
        if self.state == "closed":
            raise ProtocolViolation("the session is closed", CloseCode.GOING_AWAY)
        try:
            if self.role == "core":
                message: Message = codec.decode_client_message(frame)
                self._from_client(message)
            else:
                message = codec.decode_core_message(frame)
                self._from_core(message)
        except ProtocolViolation:
            self.close()
            raise
        return message

    def send(self, message: Message) -> bytes:
        """Return the frame that carries ``message`` to the other end.

        Raises:
            ProtocolViolation: this end may not send that now. Nothing has changed.
            TooLarge: the frame would be too large. Nothing has changed.
        """
        if self.state == "closed":
            raise ProtocolViolation("the session is closed", CloseCode.GOING_AWAY)
        if self.role == "agent":
            if not isinstance(message, ClientMessage):
                raise ProtocolViolation(f"an agent sends no {kind_of(message)}")
            frame = codec.encode(message, codec.TO_CORE_LIMIT)
            self._from_client(message)
        else:
            if not isinstance(message, CoreMessage):
                raise ProtocolViolation(f"Core sends no {kind_of(message)}")
            frame = codec.encode(message, codec.FROM_CORE_LIMIT)
            self._from_core(message)
        return frame

    def close(self) -> None:
        """End the conversation; whatever is in flight stays unanswered."""
        self.state = "closed"
        self._in_flight.clear()

    def _from_client(self, message: Message) -> None:
        if isinstance(message, Hello):
            if self.state != "opening":
                raise ProtocolViolation("hello comes once")
            self.state = "greeted"
            return
        if self.state != "open":
            raise ProtocolViolation(f"{kind_of(message)} before hello and welcome")
        if isinstance(message, Request):
            if message.id in self._in_flight:
                raise ProtocolViolation(f"request id {message.id} is in flight already")
            if len(self._in_flight) >= MAX_IN_FLIGHT:
                raise ProtocolViolation(f"more than {MAX_IN_FLIGHT} requests in flight")
            self._in_flight[message.id] = type(message)

    def _from_core(self, message: Message) -> None:
        if isinstance(message, Welcome):
            if self.state != "greeted":
                raise ProtocolViolation("welcome answers one hello")
            self.state = "open"
            return
        if self.state != "open":
            raise ProtocolViolation(f"{kind_of(message)} before hello and welcome")
        if isinstance(message, (*_ANSWERS, Error)):
            asked = self._in_flight.get(message.id)
            if asked is None:
                raise ProtocolViolation(
                    f"{kind_of(message)} for request {message.id}, which is not in flight"
                )
            if not isinstance(message, Error) and type(message) is not _ANSWER_TO[asked]:
                raise ProtocolViolation(f"{kind_of(message)} does not answer request {message.id}")
            del self._in_flight[message.id]
