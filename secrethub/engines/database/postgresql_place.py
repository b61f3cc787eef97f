"""Where a PostgreSQL server is. From a URL with Vault's placeholders; no IO.

What a URL of libpq could read from Core's host, files and services, is refused, and a password in it is taken
out before anything is kept. Without a mode the server must prove its name: ``verify-full``.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlsplit

from secrethub.engines.database.place import MODES, USER_INFO, Place, user_info
from secrethub.errors import InvalidRequest

_PORT = 5432


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
    place = Place(
        host=parts.hostname,
        port=_PORT if port is None else port,
        database=unquote(parts.path.removeprefix("/")),
        mode=mode,
    )
    return place, *user_info(parts)


def shown_url(place: Place) -> str:
    """Return the URL of a place as it is kept and shown, with placeholders."""
    host = f"[{place.host}]" if ":" in place.host else place.host
    database = quote(place.database, safe="")
    return f"postgresql://{USER_INFO}@{host}:{place.port}/{database}?sslmode={place.mode}"
