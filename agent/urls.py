"""URLs in settings: what cannot be used, and whether they stay on this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from secrethub.wire.messages import PORT


def problem(url: str, *, bare: bool) -> str | None:
    """Say what is wrong with a URL, or None.

    Secrets and triggers travel over ``https://``, or over ``http://`` to this machine itself.

    Args:
        url: as it stands in the settings.
        bare: whether it must be scheme, host and port only.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"https", "http"} or not parts.hostname or port == 0:
        return "must be a URL like https://core.example.com:4443"
    if parts.username is not None or parts.fragment:
        return "must hold no user, password or fragment"
    if bare and (parts.path or parts.query):
        return "must be scheme, host and port only"
    if not url.isascii() or any(character <= " " for character in url):
        return "must be printable ASCII"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        return "must be https:// (plain http:// only to this machine itself)"
    return None


def is_loopback(host: str) -> bool:
    """Tell whether a URL's host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def usual_gateways(urls: Iterable[str]) -> tuple[str, ...]:
    """Return where gateways usually listen on the hosts of Core's URLs."""
    hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in urls)
    return tuple(f"wss://{f'[{host}]' if ':' in host else host}:{PORT}" for host in hosts if host)
