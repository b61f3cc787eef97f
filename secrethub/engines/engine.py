"""What an engine is: a table of declared operations and the functions behind them.

Routing, decoding, capability checks and documentation are derived from the declaration, never written twice.
An engine knows no HTTP: it gets a :class:`Context` and a decoded body, and returns an :class:`Answer`.

A **read** may be run again for one request: when the commit of its audit entry shows that what it read or was
decided on has changed, it is decided and read anew before anything leaves. It declares what it read with
:meth:`Context.depends`.

A **change** runs after its intent is durable. It must do its work in one transaction opened through
``context.core.authority`` or ``context.core.database`` under ``context.fence``, so that a decision older
than the database raises :class:`~secrethub.errors.Stale` and nothing has happened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from secrethub.engines.identity import Identity
from secrethub.policy.conditions import Circumstances
from secrethub.sensitive import Sensitive

if TYPE_CHECKING:
    from secrethub.engines.runtime import Core

Method = Literal["read", "write", "delete", "list", "patch"]
"""``read`` GET · ``write`` POST and PUT · ``delete`` · ``list`` LIST and GET ?list=true · ``patch``."""

Capability = Literal["create", "read", "update", "patch", "delete", "list", "sudo"]


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision rests on; checked again inside the changing transaction.

    Attributes:
        generation: the authority generation.
        seal_epoch: the seal epoch.
        written: what was changed under it and is not in the ledger yet: table, key, revision and
            authentication of each row (``audit/state.py``). Whoever makes the fence writes it down.
        in_turn: whether nobody else can change authority until the change is made
            (``storage/fence.py``).
    """

    generation: int
    seal_epoch: int
    written: list[dict[str, Any]]
    in_turn: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Auth:
    """The ``auth`` block of a login or token creation. ``client_token`` is secret."""

    client_token: str = field(repr=False)
    accessor: str
    policies: tuple[str, ...]
    token_policies: tuple[str, ...]
    metadata: Mapping[str, str]
    lease_duration: int
    renewable: bool
    token_type: str = "service"  # noqa: S105 - a kind, not a secret
    orphan: bool = True
    num_uses: int = 0
    entity_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrapInfo:
    """The ``wrap_info`` block of an answer that is kept for later. ``token`` is secret.

    Attributes:
        token: opens it, once.
        accessor: of that token.
        ttl: seconds that it is kept.
        creation_time: RFC 3339.
        creation_path: of the request that was answered.
        wrapped_accessor: of the token in the answer, or empty.
    """

    token: str = field(repr=False)
    accessor: str
    ttl: int
    creation_time: str
    creation_path: str
    wrapped_accessor: str = ""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is no JSON, such as a certificate.

    Attributes:
        media_type: what ``content`` is (RFC 6838).
        content: given out byte by byte as it is.
    """

    media_type: str
    content: bytes


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of any length, made while it is sent. Not shown by ``repr``.

    Attributes:
        media_type: what it is (RFC 6838).
        chunks: gives it out; what it raises ends the connection before the answer's end.
    """

    media_type: str
    chunks: AsyncIterator[bytes]

    def __repr__(self) -> str:
        return f"Flow(media_type={self.media_type!r})"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation gives back. Not shown by ``repr``, for it holds what is disclosed.

    Attributes:
        data: the envelope's ``data``; None with ``empty`` set means "nothing to say" (204).
        auth: the envelope's ``auth``.
        wrap_info: the envelope's ``wrap_info``, instead of ``data`` and ``auth``.
        warnings: shown to the caller.
        lease_id: of the lease that the answer is about, or empty.
        renewable: whether that can be renewed.
        lease_duration: seconds that the lease lasts, or after which to ask again; 0 for nothing to say.
        missing: answer 404 although there is data (a deleted KV version).
        bare: answer ``data`` itself instead of the envelope (sys/init, health, …).
        code: an HTTP-like outcome only where the operation's own protocol asks for it (health).
        detail: what the ledger records about the outcome beside masked data: never a secret.
        document, flow: answered as it is, without an envelope, instead of ``data``; a flow is made meanwhile.
        delivered, undelivered: called once it was handed over, or nobody was there; may be left out.
    """

    data: Mapping[str, Any] | None = None
    auth: Auth | None = None
    wrap_info: WrapInfo | None = None
    warnings: tuple[str, ...] = ()
    lease_id: str = ""
    renewable: bool = False
    lease_duration: int = 0
    missing: bool = False
    bare: bool = False
    code: int | None = None
    detail: Mapping[str, Any] = {}
    document: Document | None = None
    flow: Flow | None = None
    delivered: Callable[[], Awaitable[None]] | None = None
    undelivered: Callable[[], Awaitable[None]] | None = None

    def __repr__(self) -> str:
        return f"Answer(missing={self.missing}, detail={self.detail!r})"


EMPTY = Answer()


class Hidden:
    """A request's body of which the ledger masks something: ``repr`` tells its kind alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class WholeBody(Hidden, msgspec.Struct, frozen=True):
    """A body that is taken as it is: any JSON object, its nulls too."""

    fields: dict[str, Any]


class Context(msgspec.Struct, kw_only=True):
    """One request on its way through one engine.

    Attributes:
        core: the process's runtime: authority, database, ledger, keyring, clock.
        mount: the mount's path with a trailing slash, e.g. ``secret/``.
        mount_id: the mount's UUID, which is also the id of its store.
        mount_options: of the engine, chosen when it was mounted.
        mount_settings: what the engine keeps of the mount as a whole.
        lease_ttl, max_lease_ttl: seconds that leases of the mount live, and at most; 0 for the cluster's.
        method: how it is called.
        path: the canonical request path below ``v1/``.
        params: what the operation's pattern captured.
        query: query parameters.
        identity: None on public operations.
        fence: valid for changes.
        client_address: the peer's address, or None when unknown.
        door: ``http``, ``tls``, ``serve`` or ``agent``.
        peer: the client's certificate and those above it, in DER, as TLS verified them; only on ``tls``.
        request_id: UUID of the request.
        now: the instant of the decision.
        body: as it came.
        wrap_ttl: seconds that the answer shall stay wrapped; 0 when it shall not be.
        streaming: the caller takes progress as it comes.
        token: the caller's own token, for the answers that repeat it.
    """

    core: Core
    mount: str
    mount_id: str
    mount_options: Mapping[str, Any]
    mount_settings: Mapping[str, Any]
    lease_ttl: int
    max_lease_ttl: int
    method: Method
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    identity: Identity | None
    fence: Fence
    client_address: str | None
    door: str
    peer: tuple[bytes, ...]
    request_id: str
    now: datetime
    body: bytes = b""
    wrap_ttl: int = 0
    streaming: bool = False
    token: Sensitive[str] | None = None
    touched: set[tuple[str, str]] = msgspec.field(default_factory=set)

    def __repr__(self) -> str:
        return f"Context(request_id={self.request_id!r}, path={self.path!r})"

    def depends(self, kind: str, key: str) -> None:
        """Declare that the answer rests on what ``changes`` rows (``kind``, ``key``) announce.

        A key that ends with ``/`` covers everything below it.
        """
        self.touched.add((kind, key))

    def stored(self, path: str) -> str:
        """Return how ``changes`` rows call what is at ``path`` below the mount, wherever that is."""
        return f"{self.mount_id}/{path}"

    @property
    def when(self) -> Circumstances:
        """What conditions of policies are about."""
        return circumstances(
            self.identity, self.now, self.client_address, self._parameters, wrap_ttl=self.wrap_ttl
        )

    def _parameters(self) -> Mapping[str, Any] | None:
        """Return what policies may speak of: what the operation reads; None when that cannot be told."""
        if self.method not in {"write", "patch"}:
            return None if self.body else self.query  # of both, some read the one, some the other
        try:
            return msgspec.json.decode(self.body or b"{}", type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None


def circumstances(
    identity: Identity | None,
    now: datetime,
    client_address: str | None,
    parameters: Callable[[], Mapping[str, Any] | None] = dict,
    wrap_ttl: int = 0,
) -> Circumstances:
    """Return what conditions of policies are about.

    Args:
        identity: who asks.
        now: the instant of the decision.
        client_address: the socket's peer, or None when the client is not known.
        parameters: gives the request's parameters, or None when they cannot be read.
        wrap_ttl: seconds that the answer shall stay wrapped; 0 when it shall not be.
    """
    return Circumstances(
        now=now,
        client_address=client_address,
        token_ttl=identity.life if identity is not None and identity.kind == "token" else None,
        wrap_ttl=wrap_ttl,
        parameters=parameters,
    )


Handler = Callable[[Context, Any], Awaitable[Answer]]
Claims = Callable[[Mapping[str, str], bytes, tuple[bytes, ...]], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One thing an engine offers.

    Attributes:
        name: for the ledger and metrics, e.g. ``kv.read``.
        method: how it is called.
        pattern: path below the mount; ``{name}`` is one segment, ``{name*}`` the rest (one or
            more segments), ``{name?}`` the rest or nothing.
        handler: the function.
        at_hand: of a read, its answer where nothing has to be waited for; None when it has, or it fails.
        capability: what a native policy rule must grant; Vault ACL uses the method's own.
        request: msgspec type of the body, or None when no body is read.
        response: type of the answer's data (``engines/answers.py``); None only beside ``media``.
        bare: its answer has no envelope (``Answer.bare``).
        media: what is answered as it is, without an envelope, is of one of these types (RFC 6838).
        query: names of query parameters.
        statuses: what it may be answered with beside what every operation may be.
        changes: whether it changes state (intent and outcome in the ledger).
        public: no token needed; the handler authenticates by itself.
        audited: False only for what must answer when nothing else does (health, seal status).
        sealing: ends with the keys gone, so its outcome is in the seal's own stream.
        keyless: works while sealed; what it does is recorded by the seal's own stream.
        wraps: its answer can be wrapped; those that have none of data, or open what is wrapped, refuse.
        sudo: additionally needs ``sudo``.
        subject: name of the parameter that names the secret itself in native rules.
        claims: of a login, whom it claims to be, for throttling: of parameters, body and client certificate.
        exists: for writes, tells create from update before the decision (None: always update).
        plain: names of body fields that the ledger may show unmasked.
        strict: refuse unknown body keys (SecretHub's own endpoints); otherwise they warn.
        summary: one line for help and OpenAPI.
    """

    name: str
    method: Method
    pattern: str
    handler: Handler
    capability: Capability
    at_hand: Callable[[Context], Answer | None] | None = None
    request: type[msgspec.Struct] | None = None
    response: type[msgspec.Struct | dict[str, Any]] | None = None
    bare: bool = False
    media: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    changes: bool = False
    public: bool = False
    audited: bool = True
    keyless: bool = False
    sealing: bool = False
    wraps: bool = True
    sudo: bool = False
    subject: str | None = None
    claims: Claims | None = None
    exists: Callable[[Context], Awaitable[bool]] | None = None
    plain: frozenset[str] = frozenset()
    strict: bool = False
    summary: str = ""


class Engine(Protocol):
    """A kind of engine. Instances live at mounts; an instance holds no state of its own."""

    kind: str

    def operations(self) -> tuple[Operation, ...]:
        """Return every operation, more specific patterns first."""
        ...

    def native_prefix(self, mount: str) -> str:
        """Return the prefix that native rules use for this mount's subjects."""
        ...
