"""Where a server of some kind is, who we are there, and how it proves who it is. No IO."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote

import msgspec

from secrethub.errors import InvalidRequest

MODES = ("disable", "require", "verify-ca", "verify-full")
SECRETS = frozenset({"password", "private_key"})
"""What of a connection is kept apart and never shown."""

_USERNAME, _PASSWORD = "{{username}}", "{{password}}"
USER_INFO = f"{_USERNAME}:{_PASSWORD}"
"""Vault's placeholders, which stand in a URL for that."""


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


def user_info(parts: SplitResult) -> tuple[str, str]:
    """Return user and password of a URL, each empty where its placeholder stands."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return "" if user == _USERNAME else user, "" if password == _PASSWORD else password


def own_secrets(
    place: Place,
    options: Mapping[str, str],
    given: Mapping[str, str],
    kept: Mapping[str, str],
    password: str,
) -> dict[str, str]:
    """Return what proves to a server who we are: of what is given now, or was kept.

    Args:
        place: the server's.
        options: of the connection as it will be.
        given: what was written, by name.
        kept: secrets of the connection as it was; empty for another place or user.
        password: the one in the URL, or empty.

    Raises:
        InvalidRequest: user or password are missing, or a certificate is none.
    """
    if not options.get("username"):
        raise InvalidRequest("a connection needs username")
    secrets = {name: value for name in SECRETS if (value := given.get(name) or kept.get(name))}
    if password:
        secrets["password"] = password
    if "password" not in secrets:
        raise InvalidRequest("a connection needs password, anew with another place or username")
    tls_context(place, options, secrets)
    return secrets


def tls_context(
    place: Place, options: Mapping[str, str], secrets: Mapping[str, str]
) -> ssl.SSLContext | bool:
    """Return how to encrypt; False for not at all.

    Args:
        place: whose mode it is.
        options: ``tls_ca``, PEM of who may sign the server's certificate, absent for the system's;
            ``tls_certificate``, PEM of ours, or absent.
        secrets: ``private_key``, PEM of its key.

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
        if authorities := options.get("tls_ca"):
            context.load_verify_locations(cadata=authorities)
        else:
            context.load_default_certs()
    except (ssl.SSLError, ValueError):
        raise InvalidRequest("tls_ca holds no certificates") from None
    if certificate := options.get("tls_certificate"):
        _load_own(context, certificate, secrets.get("private_key", ""))
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
