"""A small Core at the outer port, for tests of the agent: real TLS, the real protocol session.

It serves the calls of enrolment over HTTPS and the agents' protocol over mTLS WebSockets. What it
decides is a dictionary that the test fills; how it talks is the product's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from agent import http1
from secrethub.ids import new_uuid
from secrethub.pki import chain, csr, keys
from secrethub.pki.issuing import Issuer, Names, issue, make_authority, make_root
from secrethub.pki.names import agent_uri, gateway_uri
from secrethub.pki.profiles import AGENT, GATEWAY, INTERMEDIATE, SERVER, TRANSPORT, Profile
from secrethub.pki.tls import agent_listener_context, server_context
from secrethub.wire import messages as wire
from secrethub.wire.codec import ProtocolViolation
from secrethub.wire.session import Session

LOOPBACK = ip_address("127.0.0.1")


class Authorities:
    """A cluster's root and its two intermediates."""

    def __init__(self, cluster: str = "cluster-1") -> None:
        now = datetime.now(UTC)
        self.cluster = cluster
        self.root = make_root(keys.generate("ecdsa-p384"), cluster, now)
        self.transport = make_authority(self.root, TRANSPORT, keys.generate("ecdsa-p256"), now)
        self.pki = make_authority(self.root, INTERMEDIATE, keys.generate("ecdsa-p256"), now)

    @property
    def root_pem(self) -> str:
        return chain.to_pem(self.root.certificate)

    @property
    def root_sha256(self) -> str:
        return chain.fingerprint(self.root.certificate)

    def gateway(self, node: str = "n1") -> tuple[bytes, bytes]:
        """Return chain and key of a gateway."""
        return self.leaf(self.transport, GATEWAY, uris=(gateway_uri(self.cluster, node),))

    def server(self) -> tuple[bytes, bytes]:
        """Return chain and key of what ``pki/issue`` gives to anybody who may ask: no gateway."""
        return self.leaf(self.pki, SERVER)

    def leaf(
        self,
        issuer: Issuer,
        profile: Profile,
        uris: tuple[str, ...] = (),
        dns: tuple[str, ...] = ("localhost",),
    ) -> tuple[bytes, bytes]:
        key = keys.generate("ecdsa-p256")
        names = Names(common_name="leaf", dns=dns, addresses=(LOOPBACK,), uris=uris)
        certificate = issue(issuer, profile, key.public_key(), names, datetime.now(UTC))
        return chain.to_pem(certificate, *issuer.chain).encode(), keys.private_pem(key)

    def nameless(self) -> tuple[bytes, bytes]:
        """Return chain and key of a server below the transport authority that is no gateway."""
        key, now = keys.generate("ecdsa-p256"), datetime.now(UTC)
        public = key.public_key()
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(LOOPBACK)])
        above = self.transport.certificate
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
            .issuer_name(above.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        signed = builder.sign(self.transport.key, hashes.SHA256())
        return chain.to_pem(signed, *self.transport.chain).encode(), keys.private_pem(key)

    def agent(self, public: keys.PublicKey, agent_id: str, lifetime: timedelta | None = None) -> str:
        """Return an agent's certificate."""
        names = Names(common_name="agent", uris=(agent_uri(self.cluster, agent_id),))
        certificate = issue(self.transport, AGENT, public, names, datetime.now(UTC), lifetime)
        return chain.to_pem(certificate)

    @property
    def chain_pem(self) -> list[str]:
        return [chain.to_pem(authority) for authority in self.transport.chain]


@dataclass
class Secret:
    """What a path holds."""

    data: dict[str, Any]
    version: int = 1


@dataclass
class CorePeer:
    """Core, as far as one agent sees it.

    Attributes:
        secrets: what may be read.
        refusals: error code by path, checked first.
        without: applications that may read nothing.
        unwatched: error code by path, for watches.
        watch_limit: paths an agent may watch.
        agent_urls: what ``welcome`` names.
        requests: ``METHOD path`` of every HTTP request that came, in order.
        bodies: their decoded bodies.
        messages: every message agents sent.
        before: called with the path of an HTTP request before it is answered.
        on_read: called before a read is answered.
        on_watch: called before a watch is answered.
    """

    authorities: Authorities = field(default_factory=Authorities)
    secrets: dict[str, Secret] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    without: set[str | None] = field(default_factory=set)
    unwatched: dict[str, str] = field(default_factory=dict)
    watch_limit: int = 1_000
    agent_urls: tuple[str, ...] = ()
    requests: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    messages: list[wire.ClientMessage] = field(default_factory=list)
    sessions: list[Peer] = field(default_factory=list)
    role_id: str = "role-1"
    mount: str = "approle"
    secret_id: str = "canary-secret-id"
    logins_left: int = 1_000
    wrapped: dict[str, tuple[str, str]] = field(default_factory=dict)
    agent_id: str = field(default_factory=new_uuid)
    token: str = "hvs.canary-token"
    tokens: set[str] = field(default_factory=set)
    nonces: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    lifetime: timedelta | None = None
    close_with: tuple[int, str] | None = None
    refuse_with: tuple[int, dict[str, str]] | None = None
    before: Callable[[str], Awaitable[None]] | None = None
    on_read: Callable[[str], Awaitable[None]] | None = None
    on_watch: Callable[[], Awaitable[None]] | None = None
    https_url: str = ""
    agent_url: str = ""
    sequence: int = 0

    # HTTPS

    @contextlib.asynccontextmanager
    async def https(self, identity: tuple[bytes, bytes] | None = None) -> AsyncIterator[str]:
        """Serve the calls of enrolment; yields the URL."""
        context = server_context(*(identity or self.authorities.gateway()))
        server = await asyncio.start_server(self._http, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with server:
            self.https_url = f"https://127.0.0.1:{port}"
            yield self.https_url

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            head = http1.parse_request(await reader.readuntil(b"\r\n\r\n"))
            raw = await reader.readexactly(http1.content_length(head.headers) or 0)
            path = head.target.decode()
            self.requests.append(f"{head.method} {path}")
            self.bodies.append(json.loads(raw) if raw else None)
            if self.before is not None:
                await self.before(path)
            status, answer = self._answer(path, head.headers.get("x-vault-token", ""), self.bodies[-1])
            body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    def _answer(self, path: str, token: str, body: Any) -> tuple[int, Any]:
        denied = (403, {"errors": ["permission denied"], "code": "permission_denied"})
        if path == "/v1/pki/ca_chain":
            return 200, "".join(self.authorities.chain_pem)
        if path == f"/v1/auth/{self.mount}/login":
            given = (body["role_id"], body["secret_id"])
            if given != (self.role_id, self.secret_id) or self.logins_left == 0:
                return denied
            self.logins_left -= 1
            self.tokens.add(self.token)
            return 200, {"auth": {"client_token": self.token}}
        if path == "/v1/sys/wrapping/lookup" and body["token"] in self.wrapped:
            return 200, {"data": {"creation_path": self.wrapped[body["token"]][0]}}
        if path == "/v1/sys/wrapping/unwrap" and token in self.wrapped:
            return 200, {"data": {"secret_id": self.wrapped.pop(token)[1]}}
        if token not in self.tokens:
            return denied
        if path == "/v1/agents/enroll/begin":
            nonce = new_uuid()
            self.nonces.add(nonce)
            return 200, {"data": {"nonce": nonce, "expires": 60}}
        if path == "/v1/agents/enroll":
            return self._enroll(body)
        return 404, {"errors": []}

    def _enroll(self, body: Any) -> tuple[int, Any]:
        request = csr.parse_request(body["csr"])
        nonce = (request.challenge or b"").decode()
        if nonce not in self.nonces:
            return 400, {"errors": ["the csr does not carry the nonce"], "code": "invalid_request"}
        self.nonces.discard(nonce)
        if self.names.setdefault(body["name"], request.key_digest) != request.key_digest:
            return 400, {"errors": ["the name is taken"], "code": "conflict"}
        return 200, {
            "data": {
                "agent_id": self.agent_id,
                "certificate": self.authorities.agent(request.public_key, self.agent_id, self.lifetime),
                "ca_chain": self.authorities.chain_pem,
                "not_after": "",
                "agent_urls": [self.agent_url],
                "gateway_uri": f"secrethub://{self.authorities.cluster}/gateway/",
                "root_sha256": self.authorities.root_sha256,
            }
        }

    # Agents' protocol

    @contextlib.asynccontextmanager
    async def agents(self, identity: tuple[bytes, bytes] | None = None, port: int = 0) -> AsyncIterator[str]:
        """Serve agents; yields the URL."""
        transport = chain.to_pem(self.authorities.transport.certificate).encode()
        context = agent_listener_context(*(identity or self.authorities.gateway()), transport)
        async with serve(
            self._agent,
            "127.0.0.1",
            port,
            ssl=context,
            subprotocols=[Subprotocol(wire.SUBPROTOCOL)],
            compression=None,
            close_timeout=1.0,
            process_request=self._let_in,
        ) as server:
            self.agent_url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self.agent_url

    def _let_in(self, socket: ServerConnection, _request: Request) -> Response | None:
        if self.refuse_with is None:
            return None
        status, headers = self.refuse_with
        response = socket.respond(HTTPStatus(status), "")
        response.headers.update(headers)
        return response

    async def _agent(self, socket: ServerConnection) -> None:
        peer = Peer(self, socket)
        self.sessions.append(peer)
        try:
            await peer.run()
        except* (ConnectionClosed, ProtocolViolation):
            pass
        finally:
            self.sessions.remove(peer)

    async def write(self, path: str, **data: Any) -> None:
        """Write a secret and tell who watches it."""
        version = self.secrets[path].version + 1 if path in self.secrets else 1
        self.secrets[path] = Secret(data, version)
        self.sequence += 1
        await self.announce(path, version)

    async def announce(self, path: str, version: int) -> None:
        """Tell who watches a path that it changed."""
        for peer in self.sessions:
            if path in peer.watched:
                await peer.send(wire.Changed(path=path, version=version, sequence=self.sequence))

    async def push(self, message: wire.CoreMessage) -> None:
        """Send a message to every agent."""
        for peer in self.sessions:
            await peer.send(message)

    def reads(self, path: str) -> int:
        """Return how often a path was read."""
        return sum(isinstance(message, wire.Read) and message.path == path for message in self.messages)


class Peer:
    """One agent's conversation, from Core's side."""

    def __init__(self, core: CorePeer, socket: ServerConnection) -> None:
        self.core = core
        self.socket = socket
        self.session = Session("core")
        self.watched: set[str] = set()

    async def send(self, message: wire.CoreMessage) -> None:
        await self.socket.send(self.session.send(message), text=True)

    async def run(self) -> None:
        if self.core.close_with is not None:
            await self.socket.close(*self.core.close_with)
            return
        async with asyncio.TaskGroup() as group:
            async for frame in self.socket:
                raw = frame.encode() if isinstance(frame, str) else frame
                message: Any = self.session.receive(raw)
                self.core.messages.append(message)
                group.create_task(self._handle(message))

    async def _handle(self, message: Any) -> None:
        match message:
            case wire.Hello():
                now = datetime.now(UTC)
                urls = self.core.agent_urls
                await self.send(
                    wire.Welcome(agent_id=self.core.agent_id, server_time=now, gateway="n1", agent_urls=urls)
                )
            case wire.Read():
                if self.core.on_read is not None:
                    await self.core.on_read(message.path)
                await self.send(self._read(message))
            case wire.Watch():
                if self.core.on_watch is not None:
                    await self.core.on_watch()
                await self.send(self._watch(message))
            case wire.Unwatch():
                self.watched.difference_update(message.paths)
            case wire.RenewCertificate():
                request = csr.parse_request(message.csr)
                leaf = self.core.authorities.agent(request.public_key, self.core.agent_id)
                chain_pem = tuple(self.core.authorities.chain_pem)
                await self.send(wire.Certificate(id=message.id, certificate=leaf, ca_chain=chain_pem))

    def _watch(self, message: wire.Watch) -> wire.Watching:
        refused: list[wire.Refusal] = []
        for path in message.paths:
            code = self.core.unwatched.get(path)
            if code is None and len(self.watched | {path}) > self.core.watch_limit:
                code = "too_many_requests"
            if code is None:
                self.watched.add(path)
            else:
                refused.append(wire.Refusal(path=path, code=code))
        granted = tuple(path for path in message.paths if path in self.watched)
        return wire.Watching(
            id=message.id, paths=granted, refused=tuple(refused), sequence=self.core.sequence
        )

    def _read(self, message: wire.Read) -> wire.CoreMessage:
        code = self.core.refusals.get(message.path)
        if message.application in self.core.without:
            code = "permission_denied"
        secret = self.core.secrets.get(message.path)
        if code is not None or secret is None:
            code = code or "not_found"
            return wire.Error(id=message.id, code=code, message=code.replace("_", " "))
        return wire.Result(
            id=message.id,
            path=message.path,
            data=secret.data,
            version=message.version or secret.version,
            generation=self.core.sequence,
            created_time="2026-01-01T00:00:00Z",
        )


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Look again and again until something holds: what is waited for happens in another process.

    Raises:
        TimeoutError: it never did.
    """
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - another process sets no event here
            await asyncio.sleep(0.01)
