"""Waiting until a node's doors answer."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx2

from actors.handles.remote import off_loop
from secrethub.errors import Unavailable
from secrethub.node import Listener, NodeSettings

PATIENCE = 120.0
"""Seconds until a node whose doors stay shut is given up."""
_LOOKS = 20
"""Looks at a door for one at what may have failed."""
_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The door is plain HTTP: no authority is read."""
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not listened on


async def wait_until_ready(
    node: NodeSettings, failure: Callable[[], str | None], *, ingress: bool = True
) -> None:
    """Return when the node's doors for clients accept connections and HTTP answers.

    The door for agents opens with the first unseal, for its certificate is the built-in CA's.

    Args:
        node: which doors there are.
        failure: asked now and then; a text ends the waiting.
        ingress: whether Ray Serve's ingress is on this node.

    Raises:
        Unavailable: the doors stayed shut.
    """
    doors = [door for door in (node.tls, node.serve if ingress else None) if door is not None]
    try:
        async with asyncio.timeout(PATIENCE):
            if node.http is not None:
                await _until(partial(_accepts, node.http), failure)
                async with httpx2.AsyncClient(trust_env=False, timeout=5.0, verify=_NOBODY) as client:
                    await _until(partial(_answers, client, local_url(node.http)), failure)
            for door in doors:
                await _until(partial(_accepts, door), failure)
    except TimeoutError:
        raise Unavailable(f"the node's doors did not open within {PATIENCE:.0f} s") from None


async def wait_for_agents_door(node: NodeSettings) -> None:
    """Return when the door for agents accepts connections, after an unseal.

    Raises:
        Unavailable: it stayed shut.
    """
    if node.agents is None:
        return
    try:
        async with asyncio.timeout(PATIENCE):
            await _until(partial(_accepts, node.agents), lambda: None)
    except TimeoutError:
        raise Unavailable("the door for agents did not open") from None


def local_url(door: Listener | None, scheme: str = "http") -> str:
    """Return the URL of a door as seen from this machine."""
    if door is None:
        raise ValueError("this door is closed")
    host = _ANY_ADDRESS.get(door.host, door.host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{door.port}"


def boot_fingerprint(node: NodeSettings) -> str | None:
    """Return the SHA-256 of the certificate that 4443 shows from a sealed start to the unseal, if it has one.

    It stays the same from start to start, for it is kept in the node's folder.
    """
    path = Path(node.state_dir) / "boot-identity.pem"
    if node.tls is None or node.tls_certificate_file is not None or not path.exists():
        return None
    text = path.read_text("ascii")
    certificate = text[text.index("-----BEGIN CERTIFICATE-----") :]
    end = certificate.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate[:end])).hexdigest()


async def _until(works: Callable[[], Awaitable[bool]], failure: Callable[[], str | None]) -> None:
    looks = 0
    while not await works():
        looks += 1
        # Asking what has failed takes time of Ray, which is starting.
        problem = await off_loop(failure) if looks % _LOOKS == 0 else None
        if problem is not None:
            raise Unavailable(problem)
        await asyncio.sleep(0.05)


async def _answers(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        await client.get(f"{url}/v1/sys/health")
    except httpx2.TransportError:
        return False
    return True


async def _accepts(door: Listener) -> bool:
    host = _ANY_ADDRESS.get(door.host, door.host)
    try:
        _, writer = await asyncio.open_connection(host, door.port)
    except OSError:
        return False
    writer.close()
    return True
