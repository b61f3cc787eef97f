"""The client's trust decisions against real TLS servers on loopback."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme

from secrethub.client import AsyncClient, BadSettings, Client, ClientSettings, NotReached, NotTrusted
from secrethub.pki.chain import fingerprint, to_pem
from secrethub.pki.issuing import Issuer, Names, issue, make_authority, make_root
from secrethub.pki.keys import generate, private_pem
from secrethub.pki.names import gateway_uri
from secrethub.pki.profiles import GATEWAY, INTERMEDIATE, SERVER, TRANSPORT
from secrethub.pki.tls import server_context
from secrethub.sensitive import Sensitive

TOKEN = "hvs.CanaryCanaryCanaryCanary1234"


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers every GET with JSON and keeps the tokens it was shown."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        server = self.server
        assert isinstance(server, Server)
        server.tokens.append(self.headers.get("X-Vault-Token"))
        content = b'{"sealed": false}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        """Keep quiet."""


class Server(http.server.ThreadingHTTPServer):
    """A server on a free loopback port; a client that hangs up during the handshake is no news."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.tokens: list[str | None] = []

    def handle_error(self, *_args: object) -> None:
        """Keep quiet."""


@contextmanager
def serving(certificate: trustme.LeafCert, *, more: bytes = b"") -> Iterator[Server]:
    """Serve TLS with ``certificate``; ``more`` is PEM sent after its chain."""
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems) + more
    with serving_pem(chain, certificate.private_key_pem.bytes()) as server:
        yield server


@contextmanager
def serving_pem(chain: bytes, key: bytes) -> Iterator[Server]:
    """Serve TLS with a PEM chain and key."""
    context = server_context(chain, key)
    server = Server()
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sha256(pem: bytes) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()


def sealed(settings: ClientSettings) -> bool:
    with Client(settings) as client:
        return bool(client.read("sys/seal-status").data["sealed"])


@pytest.fixture
def root() -> trustme.CA:
    """A root nobody knows."""
    return trustme.CA()


def test_a_ca_file_is_the_only_root(root: trustme.CA, tmp_path: Path) -> None:
    """The server below the named root is trusted; one below another root is not, and gets no token."""
    root.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = root.issue_cert("127.0.0.1")
    with serving(certificate) as server:
        address = f"https://127.0.0.1:{server.server_port}"
        assert not sealed(
            ClientSettings(address=address, token=Sensitive(TOKEN), ca_file=tmp_path / "ca.pem")
        )
        assert server.tokens == [TOKEN]
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        with pytest.raises(NotTrusted):
            sealed(ClientSettings(address=address, token=Sensitive(TOKEN), ca_file=tmp_path / "other.pem"))
        with pytest.raises(NotTrusted):
            sealed(ClientSettings(address=address, token=Sensitive(TOKEN)))
        assert server.tokens == [TOKEN]


def test_a_pin_and_a_ca_file_must_agree(root: trustme.CA, tmp_path: Path) -> None:
    """A CA file without the pinned root is refused before anything is sent."""
    root.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(root.issue_cert("127.0.0.1")) as server:
        address = f"https://127.0.0.1:{server.server_port}"
        pin = sha256(root.cert_pem.bytes())
        assert not sealed(ClientSettings(address=address, ca_file=tmp_path / "ca.pem", ca_sha256=pin))
        with pytest.raises(NotTrusted):
            sealed(ClientSettings(address=address, ca_file=tmp_path / "ca.pem", ca_sha256="00" * 32))
        assert len(server.tokens) == 1


def test_a_pinned_root_in_the_chain_is_trusted_for_its_names_only(root: trustme.CA) -> None:
    """The pinned root verifies the server, and the name must still be the server's."""
    pin, more = sha256(root.cert_pem.bytes()), root.cert_pem.bytes()
    with serving(root.issue_cert("127.0.0.1"), more=more) as server:
        address = f"https://127.0.0.1:{server.server_port}"
        assert not sealed(ClientSettings(address=address, token=Sensitive(TOKEN), ca_sha256=pin))
        with pytest.raises(NotTrusted) as caught:
            sealed(ClientSettings(address=address, token=Sensitive(TOKEN), ca_sha256="00" * 32))
        assert pin in str(caught.value)
        assert server.tokens == [TOKEN]
    with serving(root.issue_cert("elsewhere.example"), more=more) as server:
        with pytest.raises(NotTrusted):
            sealed(ClientSettings(address=f"https://127.0.0.1:{server.server_port}", ca_sha256=pin))
        assert server.tokens == []


def test_a_chain_that_merely_shows_the_pinned_root_is_not_trusted(root: trustme.CA) -> None:
    """An attacker who appends the true root to his own chain gets no token."""
    pin = sha256(root.cert_pem.bytes())
    with serving(trustme.CA().issue_cert("127.0.0.1"), more=root.cert_pem.bytes()) as server:
        with pytest.raises(NotTrusted):
            sealed(ClientSettings(address=f"https://127.0.0.1:{server.server_port}", ca_sha256=pin))
        assert server.tokens == []


def test_a_pinned_leaf_is_that_server_by_any_name(root: trustme.CA) -> None:
    """The certificate shown before unseal is pinned itself; another of the same root is not it."""
    certificate = root.issue_cert("node-1.example")
    pin = sha256(certificate.cert_chain_pems[0].bytes())
    with serving(certificate) as server:
        settings = ClientSettings(address=f"https://127.0.0.1:{server.server_port}", ca_sha256=pin)
        assert not sealed(settings)
    with serving(root.issue_cert("node-1.example")) as server, pytest.raises(NotTrusted):
        sealed(ClientSettings(address=f"https://127.0.0.1:{server.server_port}", ca_sha256=pin))


async def test_below_the_cluster_s_root_only_a_gateway_is_the_server(tmp_path: Path) -> None:
    """A certificate from pki/issue, good for any host name, cannot stand in for the cluster's gateway."""
    now = datetime.now(UTC)
    root = make_root(generate("ecdsa-p384"), "c1", now)
    (tmp_path / "ca.pem").write_text(to_pem(root.certificate))
    names = {"common_name": "127.0.0.1", "addresses": (ip_address("127.0.0.1"),)}

    def leaf(issuer: Issuer, gateway: bool) -> tuple[bytes, bytes]:
        key = generate("ecdsa-p256")
        uris = (gateway_uri("c1", "node-1"),) if gateway else ()
        made = issue(issuer, GATEWAY if gateway else SERVER, key.public_key(), Names(**names, uris=uris), now)
        return to_pem(made, *issuer.chain).encode(), private_pem(key)

    transport = make_authority(root, TRANSPORT, generate("ecdsa-p384"), now)
    pki = make_authority(root, INTERMEDIATE, generate("ecdsa-p384"), now)
    pin = fingerprint(root.certificate)
    for issuer, gateway in ((transport, True), (pki, False)):
        with serving_pem(*leaf(issuer, gateway)) as server:
            address = f"https://127.0.0.1:{server.server_port}"
            for trust in ({"ca_file": tmp_path / "ca.pem"}, {"ca_sha256": pin}):
                settings = ClientSettings(address=address, token=Sensitive(TOKEN), **trust)
                if gateway:
                    assert not sealed(settings)
                    async with AsyncClient(settings) as client:
                        assert (await client.read("sys/seal-status")).data == {"sealed": False}
                    continue
                with pytest.raises(NotTrusted, match="no gateway"):
                    sealed(settings)
                async with AsyncClient(settings) as client:
                    with pytest.raises(NotTrusted, match="no gateway"):
                        await client.read("sys/seal-status")
            assert server.tokens == ([TOKEN] * 4 if gateway else [])


async def test_the_asyncio_client_pins_alike(root: trustme.CA) -> None:
    """The same trust decisions hold with asyncio."""
    pin = sha256(root.cert_pem.bytes())
    with serving(root.issue_cert("127.0.0.1"), more=root.cert_pem.bytes()) as server:
        address = f"https://127.0.0.1:{server.server_port}"
        async with AsyncClient(ClientSettings(address=address, ca_sha256=pin)) as client:
            assert (await client.read("sys/seal-status")).data == {"sealed": False}
        async with AsyncClient(ClientSettings(address=address, ca_sha256="00" * 32)) as client:
            with pytest.raises(NotTrusted):
                await client.read("sys/seal-status")


def test_plain_http_where_tls_is_expected_is_an_error_without_a_token(root: trustme.CA) -> None:
    """https:// to a plain server, and a port where nothing listens, are reported as such."""
    server = Server()
    port = server.server_port
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with pytest.raises(NotReached):
        sealed(ClientSettings(address=f"https://127.0.0.1:{port}", token=Sensitive(TOKEN), attempts=1))
    thread.join()
    server.server_close()
    assert server.tokens == []
    with pytest.raises(NotReached):
        sealed(ClientSettings(address=f"https://127.0.0.1:{port}", ca_sha256="00" * 32, attempts=1))


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    """An empty or missing CA file is a setting that cannot work."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(BadSettings, match=name):
            sealed(ClientSettings(address="https://127.0.0.1:1", ca_file=tmp_path / name))
