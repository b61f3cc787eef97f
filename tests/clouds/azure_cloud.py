"""Azure for tests: sign-in and a key vault over HTTPS, for whoever knows the client's secret."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from secrethub.node import KeyServiceSettings
from tests.clouds.cloud import Cloud

TENANT = "5f0c7127-8a6e-4f0e-9b7e-6d2f3a1c9e10"
VAULT, LOGIN = "kv.vault.test", "login.test"
_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class _Handler(BaseHTTPRequestHandler):
    """Both services; the server holds their state."""

    server: _Server

    def do_GET(self) -> None:
        """Discovery, and the key's public half."""
        if self.path.partition("?")[0].endswith("/openid-configuration"):
            base = f"https://{self.headers['Host']}/{TENANT}"
            self._send(
                200,
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                },
            )
        elif self._authenticated():
            numbers = self.server.key.public_key().public_numbers()
            jwk = {
                "kid": self.server.key_id,
                "kty": "RSA",
                "key_ops": ["wrapKey", "unwrapKey"],
                "n": _encoded(numbers.n.to_bytes(256, "big")),
                "e": _encoded(numbers.e.to_bytes(3, "big")),
            }
            self._send(200, {"key": jwk, "attributes": {"enabled": True}})

    def do_POST(self) -> None:
        """Sign-in; wrapping and unwrapping."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        path = self.path.partition("?")[0]
        if path.endswith("/token"):
            given = parse_qs(body).get("client_secret")
            if given != [self.server.secret]:
                self._send(401, {"error": "invalid_client", "error_description": "AADSTS7000215"})
                return
            token = {"token_type": "Bearer", "expires_in": 3600, "access_token": self.server.token}
            self._send(200, token)
        elif self._authenticated():
            self._crypt(path, json.loads(body))

    def _crypt(self, path: str, asked: dict[str, str]) -> None:
        value = _decoded(asked["value"])
        if asked["alg"] != "RSA-OAEP-256" or not path.startswith(self.server.key_path):
            self._send(404, {"error": {"code": "KeyNotFound"}})
        elif path.endswith("/wrapkey"):
            wrapped = self.server.key.public_key().encrypt(value, _OAEP)
            self._send(200, {"kid": self.server.key_id, "value": _encoded(wrapped)})
        else:
            try:
                opened = self.server.key.decrypt(value, _OAEP)
            except ValueError:
                self._send(400, {"error": {"code": "BadParameter"}})
                return
            self._send(200, {"kid": self.server.key_id, "value": _encoded(opened)})

    def _authenticated(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.server.token}":
            return True
        login = f"https://{LOGIN}:{self.server.server_port}/{TENANT}"
        challenge = f'Bearer authorization="{login}", resource="https://vault.test:{self.server.server_port}"'
        self._send(401, {"error": {"code": "Unauthorized"}}, challenge)
        return False

    def _send(self, status: int, body: dict[str, Any], challenge: str | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if challenge is not None:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """The vault's key and the one client that may use it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = rsa.generate_private_key(65537, 2048)
        self.secret, self.token = secrets.token_hex(16), secrets.token_hex(16)
        self.key_path = f"/keys/unseal/{secrets.token_hex(16)}"
        self.key_id = f"https://{VAULT}:{self.server_port}{self.key_path}"


@contextlib.contextmanager
def running(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Run it with one key and one client; its names are this machine's."""
    ca = trustme.CA()
    ca_file, credentials = folder / "azure-ca.pem", folder / "azure.json"
    ca.cert_pem.write_to_path(ca_file)
    server = _Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(VAULT, LOGIN).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    known = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        return known("127.0.0.1" if host in {VAULT, LOGIN} else host, *args, **options)

    patch.setattr(socket, "getaddrinfo", look_up)
    credentials.touch(0o600)

    def write(secret: str) -> None:
        given = {"tenant_id": TENANT, "client_id": "node", "client_secret": secret}
        credentials.write_text(json.dumps(given))

    def stop() -> None:
        server.shutdown()
        server.server_close()

    write(server.secret)
    cloud = Cloud(
        settings=KeyServiceSettings(
            name="azure",
            kind="azurekeyvault",
            key=server.key_id.rpartition("/")[0],
            endpoint=f"https://{LOGIN}:{server.server_port}",
            ca_file=str(ca_file),
            credentials_file=str(credentials),
        ),
        stop=stop,
        deny=lambda: write("wrong"),
    )
    try:
        yield cloud
    finally:
        cloud.close()


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
