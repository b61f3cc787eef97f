"""First contact: whose HTTPS certificate is believed before the agent has an identity.

A CA file, a pin (SHA-256 of the root certificate), both, or else the system's roots. There is no
way to switch verification off. With a pin alone the root itself must be found first: in the chain
that the server shows, or among the authorities it publishes. Those looks go over connections that
carry nothing of ours, and what they bring is believed only if it hashes to the pin.

SecretHub's own root also stands above what ``pki/issue`` hands out, for any host name. So below such
a root the server must in addition be a gateway of that cluster, signed by its transport authority.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import http_client
from agent.http_client import Tls
from agent.settings import CoreSettings
from secrethub.errors import InvalidRequest, Misconfigured, Unavailable
from secrethub.pki import chain as chains

_PUBLISHED = ("/v1/pki/ca_chain", "/v1/pki/ca/pem")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+?-----END CERTIFICATE-----")


async def trust_in(core: CoreSettings, url: str) -> Tls | None:
    """Return whom to believe at ``url``; None for plain HTTP on this machine.

    Raises:
        Misconfigured: the CA file cannot be used, or does not hold the pinned root.
        Unavailable: the server does not answer, or shows nothing that hashes to the pin.
    """
    if url.startswith("http://"):
        return None
    if core.ca_file is not None:
        return Tls(context=_trusting(_roots(core.ca_file, core.ca_sha256)), check=check_own_root)
    if core.ca_sha256 is not None:
        return Tls(context=_trusting([await _find(url, core.ca_sha256)]), check=check_own_root)
    return Tls(context=ssl.create_default_context())


def check_files(core: CoreSettings) -> None:
    """Check what can be checked without a connection.

    Raises:
        Misconfigured: the CA file cannot be used, or does not hold the pinned root.
    """
    if core.ca_file is not None:
        _trusting(_roots(core.ca_file, core.ca_sha256))


def check_own_root(tls: Any) -> None:
    """Below one of SecretHub's own roots, accept nobody but a gateway of the same cluster.

    Args:
        tls: the ``SSLObject`` of a connection whose chain has been verified.

    Raises:
        Unavailable: the server is somebody else.
    """
    chain = [chains.from_der(der) for der in _chain(tls, "get_verified_chain")]
    try:
        root = chains.authority_name(chain[-1])
    except InvalidRequest:
        return  # somebody else's root, which has its own rules
    try:
        between = chains.authority_name(chain[1])
        gateway = chains.gateway_name(chain[0])
    except (InvalidRequest, IndexError) as exc:
        raise Unavailable("the server is no gateway of the cluster") from exc
    if between.kind != "transport" or not root.cluster == between.cluster == gateway.cluster:
        raise Unavailable("the server is no gateway of the cluster")


def _trusting(roots: list[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        for root in roots:
            context.load_verify_locations(cadata=root)
    except ssl.SSLError as exc:
        raise Misconfigured("the trusted root cannot be used as a certificate") from exc
    return context


def _roots(file: Path, pin: str | None) -> list[bytes]:
    try:
        roots = _certificates(file.read_text("ascii"))
    except OSError as exc:
        raise Misconfigured(f"core.ca_file {file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise Misconfigured(f"core.ca_file {file} is not PEM") from exc
    if pin is not None:
        roots = [root for root in roots if _fingerprint(root) == pin]
    if not roots:
        wanted = "the root of core.ca_sha256" if pin else "a certificate"
        raise Misconfigured(f"core.ca_file {file} does not hold {wanted}")
    return roots


async def _find(url: str, pin: str) -> bytes:
    for certificate in await _shown(url):
        if _fingerprint(certificate) == pin:
            return certificate
    for path in _PUBLISHED:
        answer = await http_client.request("GET", url + path, tls=Tls(context=_looking()))
        for certificate in _certificates(answer.body.decode("latin-1")):
            if _fingerprint(certificate) == pin:
                return certificate
    raise Unavailable(f"{url}: no certificate there has the SHA-256 of core.ca_sha256")


async def _shown(url: str) -> list[bytes]:
    """Return the chain that a server shows in its handshake. Nothing is sent."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(15.0):
            _reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=_looking())
    except (OSError, TimeoutError) as exc:
        raise Unavailable(f"{url}: {getattr(exc, 'strerror', None) or 'no TLS connection'}") from exc
    try:
        return _chain(writer.get_extra_info("ssl_object"), "get_unverified_chain")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _chain(tls: Any, kind: str) -> list[bytes]:
    public = getattr(tls, kind, None)  # Python 3.13 and later
    if public is not None:
        return list(public())
    # Before 3.13 the chain is there, on the object behind.
    return [
        ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        for certificate in getattr(tls._sslobj, kind)()  # noqa: SLF001
    ]


def _looking() -> ssl.SSLContext:
    """Return a context for looking at public certificates only: what comes is compared with a pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _certificates(text: str) -> list[bytes]:
    try:
        return [ssl.PEM_cert_to_DER_cert(pem) for pem in _PEM.findall(text)]
    except ValueError:
        return []


def _fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()
