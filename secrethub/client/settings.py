"""Where the server is, who asks, and whom to trust: read once, refused at once when it cannot work."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from secrethub.client.errors import BadSettings
from secrethub.sensitive import Sensitive

DEFAULT_ADDRESS = "http://127.0.0.1:4000"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings:
    """Everything a client needs to know.

    Attributes:
        address: ``https://host:port``, ``http://`` on loopback, or ``unix:///path`` of an agent's socket.
        token: None for requests that need none.
        ca_file: PEM file with the root to trust instead of the system's roots.
        ca_sha256: SHA-256 fingerprint (hexadecimal, colons allowed) of the root, or of the
            certificate that a server shows while it has not been unsealed since its start.
        client_cert: PEM file with a certificate of the client's own and those above it, for logins with it.
        client_key: PEM file with its key, unencrypted; None when it is in ``client_cert``.
        plain_http: allow ``http://`` beyond loopback, where anyone on the way reads the token.
        connect_timeout: seconds to reach the server.
        timeout: seconds to wait for an answer, or for the next piece of a streamed one.
        wrap_ttl: for how long every answer shall be kept for somebody else, like ``5m``; None for not at all.
        attempts: how often a request that changes nothing is tried in all.
    """

    address: str = DEFAULT_ADDRESS
    token: Sensitive[str] | None = None
    ca_file: Path | None = None
    ca_sha256: str | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    plain_http: bool = False
    connect_timeout: float = 5.0
    timeout: float = 30.0
    attempts: int = 3
    wrap_ttl: str | None = None
    endpoint: Endpoint = field(init=False)

    def __post_init__(self) -> None:
        endpoint = parse_address(self.address)
        if endpoint.scheme == "http" and not (self.plain_http or endpoint.loopback):
            raise BadSettings(
                f"{endpoint.url}: refusing to send a token over plain HTTP beyond this machine; use https://"
            )
        if self.ca_sha256 is not None:
            object.__setattr__(self, "ca_sha256", parse_fingerprint(self.ca_sha256))
        object.__setattr__(self, "endpoint", endpoint)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, token: str | None = None) -> ClientSettings:
        """Read ``SECRETHUB_ADDR``, ``_TOKEN``, ``_CACERT``, ``_CA_SHA256``, ``_CLIENT_CERT``, ``…_KEY``.

        Vault's names come after ours.

        Args:
            environ: usually ``os.environ``.
            token: used when the environment names none, e.g. from a token file.

        Raises:
            BadSettings: a value cannot work.
        """
        chosen = _first(environ, "SECRETHUB_TOKEN", "VAULT_TOKEN") or token

        def file(name: str) -> Path | None:
            found = _first(environ, f"SECRETHUB_{name}", f"VAULT_{name}")
            return Path(found) if found else None

        return cls(
            address=_first(environ, "SECRETHUB_ADDR", "VAULT_ADDR") or DEFAULT_ADDRESS,
            token=Sensitive(chosen) if chosen else None,
            ca_file=file("CACERT"),
            ca_sha256=_first(environ, "SECRETHUB_CA_SHA256"),
            client_cert=file("CLIENT_CERT"),
            client_key=file("CLIENT_KEY"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A parsed address. ``socket`` is the path of a Unix socket, or None."""

    scheme: str
    host: str
    port: int
    socket: str | None = None

    @property
    def url(self) -> str:
        """The address in its canonical form, without a trailing slash."""
        if self.socket is not None:
            return f"unix://{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def base(self) -> str:
        """What requests are sent to below ``/v1/``; a Unix socket stands for localhost."""
        return "http://localhost/v1/" if self.socket is not None else f"{self.url}/v1/"

    @property
    def loopback(self) -> bool:
        """Whether nothing leaves this machine."""
        if self.socket is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(address: str) -> Endpoint:
    """Take an address apart.

    Raises:
        BadSettings: it is no ``https://``, ``http://`` or ``unix://`` address of a server.
    """
    try:
        parts = urlsplit(address.strip())
        port = parts.port
    except ValueError as exc:
        raise BadSettings(f"address {address!r}: {exc}") from exc
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadSettings("the address must hold no user, password, query or fragment")
    if parts.scheme == "unix":
        if not parts.path.startswith("/") or parts.netloc:
            raise BadSettings(f"address {address!r}: a Unix socket is written unix:///path")
        return Endpoint(scheme="unix", host="localhost", port=0, socket=parts.path)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadSettings(f"address {address!r}: expected https://host:port (or http:// on this machine)")
    if parts.path.rstrip("/") not in {"", "/v1"}:
        raise BadSettings(f"address {address!r}: expected no path after the port")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    return Endpoint(scheme=parts.scheme, host=parts.hostname, port=port)


def parse_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint as 64 lower-case hexadecimal digits.

    Raises:
        BadSettings: it is none.
    """
    plain = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if not _FINGERPRINT.fullmatch(plain):
        raise BadSettings("the CA fingerprint must be 64 hexadecimal digits (SHA-256)")
    return plain


def _first(environ: Mapping[str, str], *names: str) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)
