"""A request, whoever brings it: HTTP and agents make the same value and go the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from secrethub.crypto.keyring import Keyring
from secrethub.engines.engine import Method
from secrethub.engines.runtime import Core
from secrethub.engines.token.known import digest_of
from secrethub.sensitive import Sensitive


class Token:
    """A bearer token, as it came.

    Attributes:
        secret: itself.
    """

    __slots__ = ("_digest", "_keyring", "secret")

    def __init__(self, *, secret: Sensitive[str]) -> None:
        self.secret = secret
        self._keyring: Keyring | None = None
        self._digest = ""

    def digest(self, core: Core) -> str:
        """Return the digest that the token is known by, which is worked out once.

        Raises:
            Sealed: the keys are not here.
        """
        keyring = core.keyring()
        if self._keyring is not keyring:
            self._digest = digest_of(core, self.secret.reveal())
            self._keyring = keyring
        return self._digest


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentCertificate:
    """An agent, proved by the certificate of its connection.

    Attributes:
        agent_id: UUID from the URI SAN.
        serial: serial number, lower-case hexadecimal.
        application: on whose behalf it asks, as it says itself; empty for none.
    """

    agent_id: str
    serial: str
    application: str = ""


Credential = Token | AgentCertificate


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    Attributes:
        method: how.
        path: canonical path below ``v1/`` (:func:`secrethub.wire.canonical_path.parse_path`).
        peer: the client's certificate and those above it, in DER, as TLS verified them; only on ``tls``.
        body: raw JSON, possibly empty.
        query: query parameters.
        credential: who claims to ask, or None.
        client_address: the peer's address, or None when it is unknown.
        door: ``http``, ``tls``, ``serve`` or ``agent``.
        request_id: UUID.
        streaming: the caller takes progress as it comes.
        wrap_ttl: seconds that the answer shall be kept for somebody else; 0 when it shall not be.
    """

    method: Method
    path: str
    credential: Credential | None
    client_address: str | None
    door: str
    request_id: str
    streaming: bool = False
    wrap_ttl: int = 0
    peer: tuple[bytes, ...] = ()
    body: bytes = b""
    query: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"Call({self.method} {self.path!r}, door={self.door!r}, request_id={self.request_id!r})"
