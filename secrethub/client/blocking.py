"""The blocking client. Its asyncio twin is in :mod:`secrethub.client.asynchronous`."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx2

from secrethub.client import messages
from secrethub.client.errors import ApiError, ClientError
from secrethub.client.messages import Reply, Request, interpret
from secrethub.client.retry import pause
from secrethub.client.settings import ClientSettings
from secrethub.client.transport import as_client_error, limits, timeouts
from secrethub.client.trust import context_for


class Client:
    """Talks to SecretHub. One connection pool; safe to share between threads; use as a context manager.

    ::

        with Client(ClientSettings.from_environment(os.environ)) as client:
            password = client.read("secrets/prod/db").data["data"]["password"]

    Args:
        settings: where the server is, who asks, whom to trust.
        transport: another way to carry requests (a test's); by default a connection to the address.
    """

    def __init__(self, settings: ClientSettings, *, transport: httpx2.BaseTransport | None = None) -> None:
        self._settings = settings
        self._given = transport
        self._open: httpx2.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._settings.endpoint.url})"

    def close(self) -> None:
        """Close every connection. The client may be used again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def send(self, request: Request) -> Reply:
        """Send a request; one that changes nothing is tried again when that may help.

        Raises:
            ApiError: the server answered with an error.
            NotReached: no answer came.
            NotTrusted: the server's certificate is not the expected one.
            BadSettings: the request or the settings cannot work.
        """
        for attempt in range(1, self._settings.attempts + 1):
            try:
                return self._once(request)
            except ClientError as exc:
                seconds = pause(request, exc, attempt, self._settings.attempts, random.random())  # noqa: S311
                if seconds is None:
                    raise
                time.sleep(seconds)
        raise AssertionError("the last attempt returns or raises")

    def read(self, path: str, **query: str | int | None) -> Reply:
        """Read ``path``, e.g. ``secrets/prod/db`` with ``version=2``."""
        return self.send(messages.read(path, **query))

    def write(self, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Write ``body`` to ``path``. Never sent twice."""
        return self.send(messages.write(path, body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Change parts of ``path`` (JSON merge patch). Never sent twice."""
        return self.send(messages.patch(path, body))

    def delete(self, path: str) -> Reply:
        """Delete ``path``. Never sent twice."""
        return self.send(messages.delete(path))

    def list(self, path: str) -> tuple[str, ...]:
        """Return the names below ``path``; those that end with ``/`` have names below them."""
        try:
            found = self.send(messages.listing(path))
        except ApiError as exc:
            if messages.nothing_listed(exc):
                return ()
            raise
        return tuple(found.data.get("keys") or ())

    @contextmanager
    def lines(self, request: Request) -> Iterator[Iterator[str]]:
        """Send a request whose answer comes line by line. Not repeated.

        Raises:
            ApiError: the server answered with an error.
            NotReached: no answer came, or it broke off.
            NotTrusted: the server's certificate is not the expected one.
        """
        with as_client_error(self._settings.endpoint, request), self._stream(request) as response:
            if not 200 <= response.status_code < 300:
                interpret(response.status_code, response.headers, response.read())
            yield response.iter_lines()

    @contextmanager
    def chunks(self, request: Request) -> Iterator[Iterator[bytes]]:
        """Send a request whose answer may be of any length; it comes as it is sent. Not repeated.

        Raises:
            ApiError, NotReached, NotTrusted: as :meth:`lines`.
        """
        with as_client_error(self._settings.endpoint, request), self._stream(request) as response:
            if not 200 <= response.status_code < 300:
                interpret(response.status_code, response.headers, response.read())
            yield response.iter_bytes()

    def _once(self, request: Request) -> Reply:
        with as_client_error(self._settings.endpoint, request), self._stream(request) as response:
            return interpret(response.status_code, response.headers, response.read())

    @contextmanager
    def _stream(self, request: Request) -> Iterator[httpx2.Response]:
        endpoint, token = self._settings.endpoint, self._settings.token
        with self._client().stream(
            request.method,
            endpoint.base + request.target,
            content=request.content(),
            headers=request.headers(token.reveal() if token else None, self._settings.wrap_ttl),
        ) as response:
            yield response

    def _client(self) -> httpx2.Client:
        if self._open is None:
            endpoint = self._settings.endpoint
            self._open = httpx2.Client(
                transport=self._given
                or httpx2.HTTPTransport(
                    verify=context_for(self._settings),
                    uds=endpoint.socket,
                    limits=limits(),
                    trust_env=False,
                ),
                timeout=timeouts(self._settings),
                trust_env=False,  # no .netrc password and no proxy may get between
            )
        return self._open
