"""Which server certificate to accept.

Three ways: the system's roots, a CA file, or a pin (``ca_sha256``). A pin needs one look first: the
server's chain is fetched over a connection that carries nothing of ours, the certificate with the
pinned fingerprint is searched in it, and only that certificate becomes the root of the connection
that carries the token. When the pin is the leaf's own fingerprint (the certificate that a server which
started sealed shows until it is unsealed, printed at its start), that one is accepted and no other.

One of SecretHub's own roots (it names itself ``secrethub://<cluster>/ca/root``) also stands above what
``pki/issue`` hands out, for any host name. So below such a root a server must in addition carry the name
of that cluster's gateway, which only the cluster's own transport authority gives.

There is no way to switch verification off.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secrethub.client.errors import BadSettings, NotReached, NotTrusted
from secrethub.client.settings import ClientSettings, Endpoint

_AUTHORITY = re.compile(r"secrethub://([A-Za-z0-9_.-]+)/ca/[A-Za-z0-9_.-]+")


def context_for(settings: ClientSettings) -> ssl.SSLContext:
    """Return the TLS context for ``settings``; one that trusts nobody for an address without TLS.

    Raises:
        BadSettings: the CA file, or the client's own certificate, cannot be used.
        NotReached: the server to be pinned does not answer.
        NotTrusted: no certificate of the server has the pinned fingerprint.
    """
    if settings.endpoint.scheme != "https":
        return _Context(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ca_file is not None:
        context = _from_file(settings.ca_file, settings.ca_sha256)
    elif settings.ca_sha256 is not None:
        chain = presented_chain(settings.endpoint, settings.connect_timeout)
        context = _pinned(chain, settings.ca_sha256, settings.endpoint)
    else:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.client_cert is not None:
        _show(context, settings.client_cert, settings.client_key)
    return context


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 fingerprint of a DER certificate in hexadecimal."""
    return hashlib.sha256(certificate).hexdigest()


def presented_chain(endpoint: Endpoint, timeout: float) -> list[bytes]:
    """Return the DER certificates a server shows, its own first. Nothing of ours is sent.

    Raises:
        NotReached: it does not answer, or not with TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to look: nothing of ours is sent here
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=endpoint.host) as tls,
        ):
            return _chain(tls)
    except OSError as exc:
        raise NotReached(f"{endpoint.url}: {exc.strerror or exc}") from exc


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    public: Any = getattr(tls, "get_unverified_chain", None)  # Python 3.13 and later
    if public is not None:
        return list(public())
    # Before 3.13 the chain is there, on the object behind the socket.
    inner: Any = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
    return [
        ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inner.get_unverified_chain()
    ]


def _pinned(chain: list[bytes], pin: str, endpoint: Endpoint) -> ssl.SSLContext:
    for position, certificate in enumerate(chain):
        if fingerprint(certificate) == pin:
            context = _Context(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(certificate))
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            # A pinned leaf is the server itself, by whatever name it is reached.
            context.check_hostname = position > 0
            context.expect_gateways()
            return context
    shown = ", ".join(fingerprint(certificate) for certificate in chain)
    raise NotTrusted(f"{endpoint.url}: no certificate has the pinned SHA-256 fingerprint (shown: {shown})")


def _show(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Let servers that ask see the client's own certificate."""
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as exc:
        files = certificate if key is None else f"{certificate}, {key}"
        reason = "no certificate with its key, unencrypted"
        if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError):
            reason = str(exc.strerror)
        raise BadSettings(f"client certificate {files}: {reason}") from exc


def _from_file(path: Path, pin: str | None) -> ssl.SSLContext:
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise BadSettings(f"CA file {path}: {exc.strerror or exc}") from exc
    roots = [fingerprint(root) for root in context.get_ca_certs(binary_form=True)]
    if pin is not None and pin not in roots:
        raise NotTrusted(f"CA file {path} does not hold the root with the pinned SHA-256 fingerprint")
    context.expect_gateways()
    return context


class _Context(ssl.SSLContext):
    """A context with roots of its own, which checks the gateway's name at the end of the handshake."""

    gateways: frozenset[str]

    def __init__(self, _protocol: int) -> None:
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        self.sslsocket_class = _Socket
        self.sslobject_class = _Object
        self.gateways = frozenset()

    def expect_gateways(self) -> None:
        """Take the clusters of the trusted roots that are SecretHub's own."""
        uris = [uri for root in self.get_ca_certs() for uri in _uris(root)]
        matches = [match for uri in uris if (match := _AUTHORITY.fullmatch(uri))]
        self.gateways = frozenset(f"secrethub://{match[1]}/gateway/" for match in matches)

    def check(self, certificate: Mapping[str, Any] | None) -> None:
        """Refuse a server that is no gateway of the cluster whose root is trusted."""
        if not self.gateways or any(uri.startswith(tuple(self.gateways)) for uri in _uris(certificate or {})):
            return
        error = ssl.SSLCertVerificationError(1, "not a gateway of the cluster whose root is trusted")
        error.verify_message = "it is no gateway of the cluster whose root is trusted"
        raise error


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        assert isinstance(self.context, _Context)
        self.context.check(self.getpeercert())


class _Object(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        assert isinstance(self.context, _Context)
        self.context.check(self.getpeercert())


def _uris(certificate: Mapping[str, Any]) -> Iterator[str]:
    return (value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI")
