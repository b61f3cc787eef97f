"""Where a PostgreSQL server is, and how it proves who it is. From a URL with Vault's placeholders; no IO.

What a URL of libpq could read from Core's host, files and services, is refused, and a password in it is taken
out before anything is kept. Without a mode the server must prove its name: ``verify-full``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from secrethub.errors import InvalidRequest

MODES = ("disable", "require", "verify-ca", "verify-full")
_PORT = 5432
_USERNAME, _PASSWORD = "{{username}}", "{{password}}"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A database of a server.

    Attributes:
        host: name or address.
        port: of the server.
        database: its name; empty for the user's own.
        mode: of TLS, one of :data:`MODES`.
    """

    host: str
    port: int
    database: str
    mode: str

    def proven(self, options: Mapping[str, str]) -> bool:
        """Tell whether the connection is encrypted and the server proves who it is."""
        return self.mode == "verify-full" or (self.mode == "verify-ca" and bool(options.get("tls_ca")))


def parse_place(url: str) -> tuple[Place, str, str]:
    """Return what a URL says: the place, and user and password if they are in it instead of placeholders.

    Raises:
        InvalidRequest: it says something that is not taken. The message has nothing of it.
    """
    wrong = "connection_url is postgresql://{{username}}:{{password}}@host:port/database?sslmode=verify-full"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest(wrong) from None
    if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname or parts.fragment:
        raise InvalidRequest(wrong)
    if "," in parts.netloc.rpartition("@")[2] or "{" in parts.hostname:
        raise InvalidRequest("connection_url names one host")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    mode = query.pop("sslmode", MODES[-1])
    if query or mode not in MODES:
        raise InvalidRequest(f"connection_url has no parameter but sslmode: {', '.join(MODES)}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return (
        Place(
            host=parts.hostname,
            port=_PORT if port is None else port,
            database=unquote(parts.path.removeprefix("/")),
            mode=mode,
        ),
        "" if user == _USERNAME else user,
        "" if password == _PASSWORD else password,
    )


def shown_url(place: Place) -> str:
    """Return the URL of a place as it is kept and shown, with placeholders."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    database = quote(place.database, safe="")
    return f"postgresql://{_USERNAME}:{_PASSWORD}@{host}:{place.port}/{database}?sslmode={place.mode}"


def tls_context(place: Place, authorities: str, certificate: str, key: str) -> ssl.SSLContext | bool:
    """Return how to encrypt; False for not at all.

    Args:
        place: whose mode it is.
        authorities: PEM of who may sign the server's certificate; empty for the system's.
        certificate: PEM of ours, or empty.
        key: PEM of its private key.

    Raises:
        InvalidRequest: that is no certificate.
    """
    if place.mode == "disable":
        return False
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.name = place.host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = place.mode == "verify-full"
    context.verify_mode = ssl.CERT_NONE if place.mode == "require" else ssl.CERT_REQUIRED
    try:
        if authorities:
            context.load_verify_locations(cadata=authorities)
        else:
            context.load_default_certs()
    except (ssl.SSLError, ValueError):
        raise InvalidRequest("tls_ca holds no certificates") from None
    if certificate:
        _load_own(context, certificate, key)
    return context


def _load_own(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load our certificate. The library reads files only, so it is one in memory that has no name."""
    descriptor = os.memfd_create("tls")
    try:
        os.write(descriptor, f"{certificate}\n{key}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: "")
    except (ssl.SSLError, OSError, ValueError):
        raise InvalidRequest("tls_certificate and private_key do not belong together") from None
    finally:
        os.close(descriptor)


class _Named(ssl.SSLContext):
    """Asks for the certificate of the name that was looked up, not of the address that it led to."""

    name: str

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,  # noqa: ARG002 - the address
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.name, session)
