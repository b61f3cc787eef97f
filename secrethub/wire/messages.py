"""The messages of the agent protocol, ``secrethub.agent.v1``.

One JSON text frame carries one message, told apart by ``type``. Requests carry an ``id`` that the
client chooses and that the answer repeats; it is never believed to say who asks: that is the
certificate's business. Paths are written as a person writes them, ``secrets/prod/db``.

::

    client → core                          core → client
    hello              (first)             welcome            (answers hello)
    read               (id)                result | error     (same id)
    watch              (id)                watching | error   (same id)
    renew_certificate  (id)                certificate | error
    issue              (id)                issued | error     (same id)
    renew_lease        (id)                renewed | error
    revoke_lease       (id)                noted | error
    take_order         (id)                ordered | error
    answer_order       (id)                noted | error
    unwatch, status, confirm               changed, policy_changed, certificate_due, checkpoint,
                                           order_due, drain
    pong               (answers ping)      ping

A push says what changed, never the value: the client reads under a fresh, audited decision.
Unknown types, unknown fields and missing fields are refused on both sides.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from secrethub.wire.fields import (
    Application,
    CheckpointBytes,
    Count,
    Instant,
    LeaseId,
    OrderId,
    OrderOutcome,
    OrderStep,
    Path,
    RequestId,
)

SUBPROTOCOL = "secrethub.agent.v1"
PORT = 4665
"""Where gateways listen unless a node's settings say otherwise."""

MAX_HELD = 64
"""Orders that an agent has in hand at most."""

MAX_APPLICATIONS = 64
"""Names of applications that a client reads for on one connection."""
MAX_PATHS = 1000
"""Paths one ``watch`` or ``unwatch`` may name."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """What all messages share: immutable, strict."""


# Client → core


class Hello(_Message, frozen=True, tag="hello"):
    """Opens the conversation. ``version`` and ``name`` are for people; nothing is decided on them.

    ``witness`` is the newest checkpoint of the ledger that the client was shown, by whatever gateway.
    """

    version: Annotated[str, Meta(max_length=64)]
    name: Annotated[str, Meta(max_length=256)]
    witness: CheckpointBytes = b""


class Read(_Message, frozen=True, tag="read", omit_defaults=True):
    """Asks for a secret; the newest version unless ``version`` names one.

    ``application`` says on whose behalf: then the policies bound to it must allow the read as well. It is
    the client's word, so it narrows and never grants.
    """

    id: RequestId
    path: Path
    version: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None
    application: Application | None = None


class Watch(_Message, frozen=True, tag="watch"):
    """Asks to be told when any of ``paths`` changes. Adds to what is watched already."""

    id: RequestId
    paths: Annotated[tuple[Path, ...], Meta(min_length=1, max_length=MAX_PATHS)]


class Unwatch(_Message, frozen=True, tag="unwatch"):
    """Ends watches. Not answered; a path that is not watched is no error."""

    paths: Annotated[tuple[Path, ...], Meta(min_length=1, max_length=MAX_PATHS)]


class TemplateStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file that the agent writes. ``error`` says what is wrong and never holds a value."""

    destination: Annotated[str, Meta(max_length=1024)]
    rendered: bool
    error: Annotated[str, Meta(max_length=512)] | None = None


class Status(_Message, frozen=True, tag="status"):
    """How the agent does: secrets in its cache, files it writes. Not answered."""

    cached: Count
    templates: Annotated[tuple[TemplateStatus, ...], Meta(max_length=256)] = ()


class Confirm(_Message, frozen=True, tag="confirm"):
    """Says that ``version`` of ``path`` is in use on the host. Not answered."""

    path: Path
    version: Count


class RenewCertificate(_Message, frozen=True, tag="renew_certificate"):
    """Asks for a new certificate; ``csr`` is PEM and signed by the new (or same) key."""

    id: RequestId
    csr: Annotated[str, Meta(max_length=16_384)]


class Issue(_Message, frozen=True, tag="issue", omit_defaults=True):
    """Asks for credentials, which end with their lease; ``application`` is what it is in ``read``."""

    id: RequestId
    path: Path
    application: Application | None = None


class RenewLease(_Message, frozen=True, tag="renew_lease"):
    """Asks that a lease of the client's last as long again as it was made for."""

    id: RequestId
    lease_id: LeaseId


class RevokeLease(_Message, frozen=True, tag="revoke_lease"):
    """Ends a lease of the client's."""

    id: RequestId
    lease_id: LeaseId


class TakeOrder(_Message, frozen=True, tag="take_order"):
    """Asks for a command to be run on this host; none of those ``held`` already."""

    id: RequestId
    held: Annotated[tuple[OrderId, ...], Meta(max_length=MAX_HELD)] = ()


class AnswerOrder(_Message, frozen=True, tag="answer_order"):
    """Says how a command ended. ``said`` never holds a value."""

    id: RequestId
    order: OrderId
    step: OrderStep
    attempt: Count
    outcome: OrderOutcome
    said: Annotated[str, Meta(max_length=2048)] = ""


class Pong(_Message, frozen=True, tag="pong"):
    """Answers ``ping``."""


# Core → client


class Welcome(_Message, frozen=True, tag="welcome"):
    """Answers ``hello``: who the certificate says the client is, and the server's clock.

    ``agent_urls`` are the addresses of the gateways at present, to be kept for later; empty says nothing.
    """

    agent_id: str
    server_time: Instant
    gateway: str
    agent_urls: tuple[str, ...] = ()


class Result(_Message, frozen=True, tag="result"):
    """A secret. ``generation`` is the authority generation that it was given under."""

    id: RequestId
    path: str
    data: dict[str, Any]
    version: Count
    generation: Count
    created_time: str

    def __repr__(self) -> str:
        return f"Result(id={self.id}, path={self.path!r}, version={self.version}, data=…)"


class Error(_Message, frozen=True, tag="error"):
    """A request was refused or failed. ``code`` is one of those in ``secrethub.errors``."""

    id: RequestId
    code: str
    message: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A path that is not watched, and why."""

    path: str
    code: str


class Watching(_Message, frozen=True, tag="watching"):
    """Answers ``watch``: the paths that are watched from now on, and those refused.

    ``sequence`` is the last change the gateway had seen when the watches began: what changed later
    is announced, what is read from now on is at least as new.
    """

    id: RequestId
    paths: tuple[str, ...]
    refused: tuple[Refusal, ...] = ()
    sequence: Count = 0


class Changed(_Message, frozen=True, tag="changed"):
    """A watched secret changed. ``version`` 0 means that the newest version is not known or gone."""

    path: str
    version: Count
    sequence: Count


class PolicyChanged(_Message, frozen=True, tag="policy_changed"):
    """What the client may read has changed: ask again for what is cached or was refused."""


class CertificateDue(_Message, frozen=True, tag="certificate_due"):
    """The certificate of this connection ends at ``not_after``: renew it now."""

    not_after: Instant


class Checkpoint(_Message, frozen=True, tag="checkpoint"):
    """The newest checkpoint of the ledger, to be kept; ``public`` is the key that it is signed with."""

    signed: CheckpointBytes
    public: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Certificate(_Message, frozen=True, tag="certificate"):
    """Answers ``renew_certificate`` with PEM texts, the leaf and then the CAs above it."""

    id: RequestId
    certificate: str
    ca_chain: tuple[str, ...]


class Issued(_Message, frozen=True, tag="issued"):
    """Answers ``issue``: credentials, and for how many seconds they are good unless renewed."""

    id: RequestId
    path: str
    data: dict[str, Any]
    lease_id: LeaseId
    lease_duration: Count
    renewable: bool

    def __repr__(self) -> str:
        return f"Issued(id={self.id}, path={self.path!r}, lease_id={self.lease_id!r}, data=…)"


class Renewed(_Message, frozen=True, tag="renewed"):
    """Answers ``renew_lease``: for how many seconds the lease lasts from now on."""

    id: RequestId
    lease_duration: Count


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command to be run, called as the host's own settings call it, and what it is told.

    Values that a step is not about are null.
    """

    order: OrderId
    step: OrderStep
    attempt: Count
    command: str
    path: str
    field: str
    value: str | None = None
    old_value: Any = None

    def __repr__(self) -> str:
        return f"Order(order={self.order!r}, step={self.step!r}, command={self.command!r})"


class Ordered(_Message, frozen=True, tag="ordered"):
    """Answers ``take_order``; null when there is nothing more to be done."""

    id: RequestId
    order: Order | None = None


class Noted(_Message, frozen=True, tag="noted"):
    """Answers ``answer_order`` and ``revoke_lease``."""

    id: RequestId


class OrderDue(_Message, frozen=True, tag="order_due"):
    """There is a command to be run: take it."""


class Drain(_Message, frozen=True, tag="drain"):
    """Connect elsewhere (``urls``, may be empty: try any you know) ``within`` so many seconds."""

    urls: tuple[str, ...]
    within: Annotated[float, Meta(ge=0)]


class Ping(_Message, frozen=True, tag="ping"):
    """Asks for a sign of life and gives one."""

    server_time: Instant


ClientMessage: TypeAlias = (
    Hello
    | Read
    | Watch
    | Unwatch
    | Status
    | Confirm
    | RenewCertificate
    | Issue
    | RenewLease
    | RevokeLease
    | TakeOrder
    | AnswerOrder
    | Pong
)
CoreMessage: TypeAlias = (
    Welcome
    | Result
    | Error
    | Watching
    | Changed
    | PolicyChanged
    | CertificateDue
    | Checkpoint
    | Certificate
    | Issued
    | Renewed
    | Ordered
    | Noted
    | OrderDue
    | Drain
    | Ping
)
Message: TypeAlias = ClientMessage | CoreMessage


def kind_of(message: Message) -> str:
    """Return the message's ``type`` as it stands on the wire."""
    return str(type(message).__struct_config__.tag)
