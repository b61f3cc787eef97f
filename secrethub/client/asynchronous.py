"""The asyncio client. Its blocking twin is in :mod:`secrethub.client.blocking`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Self

import httpx2

from secrethub.client import messages
from secrethub.client.errors import ApiError, ClientError
from secrethub.client.messages import Reply, Request, interpret
from secrethub.client.retry import pause
from secrethub.client.settings import ClientSettings
from secrethub.client.transport import as_client_error, limits, timeouts
from secrethub.client.trust import context_for


class AsyncClient:
    """Talks to SecretHub from one event loop. One connection pool; use as an async context manager.

    Args:
        settings: where the server is, who asks, whom to trust.
        transport: another way to carry requests (a test's); by default a connection to the address.
    """

    def __init__(
        self, settings: ClientSettings, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._given = transport
        self._open: httpx2.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._settings.endpoint.url})"

    async def close(self) -> None:
        """Close every connection. The client may be used again."""
        if self._open is not None:
            await self._open.aclose()
            self._open = None

    async def send(self, request: Request) -> Reply:
        """Send a request; one that changes nothing is tried again when that may help.

        Raises:
            ApiError: the server answered with an error.
            NotReached: no answer came.
            NotTrusted: the server's certificate is not the expected one.
            BadSettings: the request or the settings cannot work.
        """
        for attempt in range(1, self._settings.attempts + 1):
            try:
                return await self._once(request)
            except ClientError as exc:
                seconds = pause(request, exc, attempt, self._settings.attempts, random.random())  # noqa: S311
                if seconds is None:
                    raise
                await asyncio.sleep(seconds)
        raise AssertionError("the last attempt returns or raises")

    async def read(self, path: str, **query: str | int | None) -> Reply:
        """Read ``path``, e.g. ``secrets/prod/db`` with ``version=2``."""
        return await self.send(messages.read(path, **query))

    async def write(self, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Write ``body`` to ``path``. Never sent twice."""
        return await self.send(messages.write(path, body))

    async def patch(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Change parts of ``path`` (JSON merge patch). Never sent twice."""
        return await self.send(messages.patch(path, body))

    async def delete(self, path: str) -> Reply:
        """Delete ``path``. Never sent twice."""
        return await self.send(messages.delete(path))

    async def list(self, path: str) -> tuple[str, ...]:
        """Return the names below ``path``; those that end with ``/`` have names below them."""
        try:
            found = await self.send(messages.listing(path))
        except ApiError as exc:
            if messages.nothing_listed(exc):
                return ()
            raise
        return tuple(found.data.get("keys") or ())

    async def _once(self, request: Request) -> Reply:
        endpoint, token = self._settings.endpoint, self._settings.token
        with as_client_error(endpoint, request):
            response = await (await self._client()).request(
                request.method,
                endpoint.base + request.target,
                content=request.content(),
                headers=request.headers(token.reveal() if token else None, self._settings.wrap_ttl),
            )
            return interpret(response.status_code, response.headers, response.content)

    async def _client(self) -> httpx2.AsyncClient:
        async with self._opening:
            if self._open is None:
                transport = self._given or await self._transport()
                self._open = httpx2.AsyncClient(
                    transport=transport, timeout=timeouts(self._settings), trust_env=False
                )
            return self._open

    async def _transport(self) -> httpx2.AsyncHTTPTransport:
        # Looking at a pinned server's chain blocks, and so does reading certificate files.
        context = await asyncio.to_thread(context_for, self._settings)
        return httpx2.AsyncHTTPTransport(
            verify=context,
            uds=self._settings.endpoint.socket,
            limits=limits(),
            trust_env=False,
        )
