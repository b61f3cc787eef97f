"""POST requests to services that somebody configured through the API: to a checked address, and nowhere else.

The name is looked up and checked anew for each request, the connection is made to the address that was
checked, and the certificate must be the name's. No redirect is followed, no proxy of the environment used.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import httpx2

from secrethub.engines.outbound import WebTarget, allowed_addresses
from secrethub.errors import InvalidRequest, Unavailable
from secrethub.node import NodeSettings

_SECONDS = 10.0
"""For each thing that is waited for: the connection, room for more to send, the next bytes."""
_WHOLE = 20.0
"""For a request with its answer, however steadily it trickles."""


def trusting(ca_pem: str) -> ssl.SSLContext:
    """Return what verifies a service.

    Args:
        ca_pem: certificates to trust instead of the system's; empty for those.

    Raises:
        InvalidRequest: these are no certificates.
    """
    try:
        return ssl.create_default_context(cadata=ca_pem or None)
    except (ssl.SSLError, ValueError) as exc:
        raise InvalidRequest("ca_pem holds no certificates") from exc


def client(context: ssl.SSLContext) -> httpx2.AsyncClient:
    """Return a client, to be closed, that does nothing but what it is told to."""
    return httpx2.AsyncClient(verify=context, timeout=_SECONDS, trust_env=False, follow_redirects=False)


async def checked_address(settings: NodeSettings, target: WebTarget) -> str:
    """Return an address of a service that may be connected to.

    Raises:
        Refused: it must not be (``outbound.Refused``).
        Unavailable: the name is not known now.
    """
    secure = target.scheme == "https"
    try:
        return str((await allowed_addresses(settings, target.host, target.port, secure=secure))[0])
    except OSError as exc:
        raise Unavailable(f"the name {target.host} is not known") from exc


async def post(
    sender: httpx2.AsyncClient,
    settings: NodeSettings,
    target: WebTarget,
    headers: Mapping[str, str],
    content: bytes,
    *,
    within: float = _WHOLE,
) -> int:
    """Post, and return the status of the answer; its body is not read.

    Args:
        sender: a :func:`client`.
        settings: this node's.
        target: of the service.
        headers: beside ``Host``.
        content: the body.
        within: seconds that it may take.

    Raises:
        Refused: the service must not be connected to (``outbound.Refused``).
        Unavailable: it does not answer in time; no address and no content is in the message.
    """
    address = await checked_address(settings, target)
    host = f"[{address}]" if ":" in address else address
    try:
        async with (
            asyncio.timeout(within),
            sender.stream(
                "POST",
                f"{target.scheme}://{host}:{target.port}{target.path}",
                headers={"Host": target.authority, **headers},
                content=content,
                extensions={"sni_hostname": target.host},
            ) as answer,
        ):
            return int(answer.status_code)
    except (httpx2.HTTPError, OSError) as exc:
        raise Unavailable(f"{target.host} does not answer ({type(exc).__name__})") from exc
