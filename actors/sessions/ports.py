"""What a session needs from outside, and the values that cross."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from secrethub.ids import new_uuid
from secrethub.storage.agent_reports import Report
from secrethub.wire.messages import AnswerOrder, Order
from secrethub.wire.messages import Checkpoint as CheckpointMessage


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Who is at the other end, read from its certificate and its socket and from nothing else.

    Attributes:
        agent_id: UUID of the agent.
        serial: serial number of the certificate, as the database spells it.
        address: the socket's peer address.
        not_before: start of the certificate's life.
        not_after: its end; the connection ends with it.
        session: identity of the connection.
    """

    agent_id: str
    serial: str
    address: str
    not_before: datetime
    not_after: datetime
    session: str = field(default_factory=new_uuid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """What a read gives. ``data`` is secret."""

    data: Mapping[str, Any] = field(repr=False)
    version: int
    generation: int
    created_time: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedCertificate:
    """A new certificate and the CAs above it, PEM."""

    certificate: str
    ca_chain: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What was made for an agent. ``data`` is secret; ``lease_duration`` is in seconds."""

    data: Mapping[str, Any] = field(repr=False)
    lease_id: str
    lease_duration: int
    renewable: bool


class Transport(Protocol):
    """The connection as a session sees it."""

    async def send(self, frame: bytes) -> None:
        """Send one frame; return once the connection has room for more.

        Raises:
            ConnectionError: the connection is gone.
        """
        ...

    def pause(self) -> None:
        """Take nothing more from the wire until :meth:`resume`; what was taken may still come."""
        ...

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin to close, at once and without waiting; what cannot be flushed soon is dropped."""
        ...


class Access(Protocol):
    """The one path to decisions and secrets. Every call decides anew, for this peer."""

    async def admit(self, peer: Peer) -> frozenset[str]:
        """Decide whether the peer may connect, and record it.

        Returns:
            As :meth:`standing`.

        Raises:
            PermissionDenied: revoked or unknown.
            SecretHubError: this cannot be told now.
        """
        ...

    async def standing(self, peer: Peer, applications: Collection[str] = ()) -> frozenset[str]:
        """Check that the agent and its certificate are still good.

        Returns:
            The authority rows (``<table>/<key>``) that the agent's rights rest on, and those of
            ``applications``; when one of them changes, so may its rights.

        Raises:
            PermissionDenied: revoked or unknown.
            SecretHubError: this cannot be told now.
        """
        ...

    async def read(
        self, peer: Peer, path: str, version: int | None, application: str | None = None
    ) -> Secret:
        """Read a secret, decided and recorded; for an application, if it is named, with its policies, too.

        Raises:
            SecretHubError: refused or failed.
        """
        ...

    async def watch(self, peer: Peer, path: str) -> str:
        """Decide whether the peer may be told of changes of ``path``: whether it may read it.

        Returns:
            The key under which the changes of that secret are announced. One key, one path.

        Raises:
            SecretHubError: refused (recorded) or failed.
        """
        ...

    async def may_still_watch(self, peer: Peer, path: str) -> bool:
        """Decide again about a path that is watched.

        Raises:
            SecretHubError: this cannot be told now.
        """
        ...

    def unwatched(self, peer: Peer, key: str) -> None:
        """Take note that the peer watches a key no more. Returns at once."""
        ...

    def confirmed(self, peer: Peer, key: str, version: int) -> None:
        """Take note that the peer says to use a version of what it watches. Returns at once."""
        ...

    def reported(self, peer: Peer, report: Report) -> None:
        """Take note of how the peer's files are. Returns at once."""
        ...

    def witnessed(self, witness: bytes) -> None:
        """Take note of the newest checkpoint of the ledger that an agent keeps. Returns at once."""
        ...

    def checkpoint(self, seen: bytes) -> CheckpointMessage | None:
        """Return the newest checkpoint of the ledger, to be shown to an agent that keeps another one.

        Returns:
            None where there is none yet, or this process has not seen as much as the agent.
        """
        ...

    async def renew(self, peer: Peer, csr: str) -> IssuedCertificate:
        """Issue a new certificate for the same agent.

        Raises:
            SecretHubError: refused or failed.
        """
        ...

    async def issue(self, peer: Peer, path: str, application: str | None = None) -> Credentials:
        """Have credentials made for the peer, decided and recorded as :meth:`read`.

        Raises:
            SecretHubError: refused or failed; nothing is left at the target for longer than an intent.
        """
        ...

    async def renew_lease(self, peer: Peer, lease_id: str) -> int:
        """Let a lease of the peer's last longer; return for how many seconds from now.

        Raises:
            SecretHubError: refused or failed.
        """
        ...

    async def revoke_lease(self, peer: Peer, lease_id: str) -> None:
        """End a lease of the peer's.

        Raises:
            SecretHubError: refused or failed.
        """
        ...

    async def abandon(self, peer: Peer, lease_id: str) -> None:
        """Have a lease ended that was made for the peer, who was gone before it was told of it.

        Raises:
            SecretHubError: not now; it ends by itself.
        """
        ...

    async def take_order(self, peer: Peer, held: tuple[str, ...]) -> Order | None:
        """Return a command that the peer is to run, decided and recorded; None for none.

        Raises:
            SecretHubError: refused or failed.
        """
        ...

    async def answer_order(self, peer: Peer, message: AnswerOrder) -> None:
        """Take the peer's word for how a command ended.

        Raises:
            SecretHubError: refused or failed.
        """
        ...


class Observer(Protocol):
    """Whom sessions tell what they did, for metrics."""

    def pushed(self, kind: str) -> None:
        """A push of this message type left."""
        ...

    def confirmed(self, seconds: float) -> None:
        """An agent confirmed a change so long after it was told of it."""
        ...
