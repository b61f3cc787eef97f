"""Connections to databases over TLS: who the server must prove to be, before it sees anything of us."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from tests.gateway.conftest import Node
from tests.gateway.database_target import TargetDatabase
from tests.gateway.databases import MOUNT, creds, role, target
from tests.gateway.kv import ok

__all__ = ["target"]  # the fixture


class Front:
    """Speaks TLS in front of a server that is reached in clear, as PostgreSQL's protocol begins it."""

    def __init__(self, target: TargetDatabase, context: ssl.SSLContext) -> None:
        self._target = target
        self._context = context
        self.port = 0
        self.heard = 0
        """Bytes that clients have sent after the handshake."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        await reader.readexactly(8)  # SSLRequest
        writer.write(b"S")
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.start_tls(self._context)
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target.port)
            await asyncio.gather(self._copy(reader, ours, count=True), self._copy(theirs, writer))
        writer.close()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                self.heard += len(data) if count else 0
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who vouches for the server."""
    return trustme.CA()


@pytest.fixture
async def front(target: TargetDatabase, authority: trustme.CA) -> AsyncIterator[Front]:
    """The target behind TLS, with a certificate for ``localhost``; clients may have one, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    one = Front(target, context)
    server = await asyncio.start_server(one.accept, "127.0.0.1", 0)
    one.port = int(server.sockets[0].getsockname()[1])
    yield one
    server.close()


async def test_the_server_proves_its_name(
    leasing: Node, target: TargetDatabase, front: Front, authority: trustme.CA
) -> None:
    """With the right authority and name users are made; with another of them nothing of us is shown."""
    ours, others = authority.cert_pem.bytes().decode(), trustme.CA().cert_pem.bytes().decode()
    place = f"{{{{username}}}}:{{{{password}}}}@%s:{front.port}/{target.name}"
    for host, mode, trusted in (
        ("localhost", "", others),
        ("localhost", "?sslmode=verify-ca", others),
        ("127.0.0.1", "", ours),
        ("localhost", "", ""),
    ):
        url = f"postgresql://{place % host}{mode}"
        body = target.config(connection_url=url, tls_ca=trusted)
        refused = await leasing.call("POST", f"{MOUNT}/config/db", json=body)
        assert refused.status_code == 400, (host, mode, refused.text)
        assert "error verifying connection" in refused.text
        assert front.heard == 0
    own = authority.issue_cert("secrethub")
    for host, mode, more in (
        ("127.0.0.1", "?sslmode=verify-ca", {}),
        ("127.0.0.1", "?sslmode=require", {}),
        ("localhost", "", {}),
        (
            "localhost",
            "?sslmode=verify-full",
            {
                "tls_certificate": own.cert_chain_pems[0].bytes().decode(),
                "private_key": own.private_key_pem.bytes().decode(),
            },
        ),
    ):
        url = f"postgresql://{place % host}{mode}"
        await ok(
            leasing, "POST", f"{MOUNT}/config/db", target.config(connection_url=url, tls_ca=ours, **more)
        )
    read = await leasing.call("GET", f"{MOUNT}/config/db")
    assert "PRIVATE" not in read.text
    await ok(leasing, "POST", f"{MOUNT}/roles/app", role())
    made = await creds(leasing)
    assert await target.opens(made["data"]["username"], made["data"]["password"])
