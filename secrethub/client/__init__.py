"""HTTP client for the command line and for applications.

:class:`Client` blocks, :class:`AsyncClient` awaits; both send what :mod:`~secrethub.client.messages`
builds and raise what :mod:`~secrethub.client.errors` lists. Tokens travel in one header and are never
part of a URL, a log line or a ``repr``.
"""

from __future__ import annotations

from secrethub.client.asynchronous import AsyncClient
from secrethub.client.blocking import Client
from secrethub.client.errors import ApiError, BadSettings, ClientError, NotReached, NotTrusted
from secrethub.client.messages import Reply, Request
from secrethub.client.settings import ClientSettings

__all__ = [
    "ApiError",
    "AsyncClient",
    "BadSettings",
    "Client",
    "ClientError",
    "ClientSettings",
    "NotReached",
    "NotTrusted",
    "Reply",
    "Request",
]
