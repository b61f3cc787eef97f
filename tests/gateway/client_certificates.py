"""Clients with certificates at the TLS door."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import msgspec

from tests.gateway.behind import until
from tests.gateway.conftest import Node
from tests.gateway.raw_http import Reply, request, wire
from tests.private_authority import Issued


def showing(client: Issued | None, folder: Path) -> ssl.SSLContext:
    """A client's context that shows a certificate, and believes every server: it is not what is tested."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if client is not None:
        context.load_cert_chain(*client.files(folder))
    return context


async def over_tls(
    node: Node, context: ssl.SSLContext, path: str, body: dict[str, Any] | None = None, token: str = ""
) -> Reply:
    """Send a request to the TLS door."""
    headers = [f"X-Vault-Token: {token}"] if token else []
    async with wire(node, context) as connection:
        data = msgspec.json.encode(body or {})
        await connection.send(request(f"/v1/{path}", *headers, method="POST", body=data))
        return await connection.reply()


async def until_asked(node: Node, *, ask: bool = True) -> None:
    """Wait until the listener asks for certificates of the roles that were written, or of nobody."""

    async def does() -> bool:
        return (node.process._tls.context.verify_mode == ssl.CERT_OPTIONAL) == ask

    await until(does)


async def until_trusted(node: Node, client: Issued, folder: Path) -> None:
    """Wait until the listener asks for certificates and takes a client's."""
    await until_asked(node)

    async def taken() -> bool:
        try:
            await over_tls(node, showing(client, folder), "sys/health")
        except (OSError, asyncio.IncompleteReadError):
            return False
        return True

    await until(taken)
