"""An HTTP collector: entries as JSON Lines in the body of a POST, taken when it answers 2xx."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import httpx2

from secrethub.engines import outbound_http
from secrethub.engines.outbound import Refused, parse_url
from secrethub.engines.sinks.target import TargetFailed
from secrethub.errors import Unavailable
from secrethub.node import NodeSettings
from secrethub.sensitive import Sensitive


class HttpTarget:
    """The service at a URL. No redirect is followed, and no proxy of the environment is used."""

    def __init__(
        self, settings: NodeSettings, url: str, authorization: Sensitive[str] | None, ca_pem: str = ""
    ) -> None:
        """Prepare; nothing is connected to yet.

        Args:
            settings: this node's.
            url: of the collector.
            authorization: value of the header.
            ca_pem: certificates to trust instead of the system's.

        Raises:
            InvalidRequest: no such URL, or no certificates.
        """
        self._settings = settings
        self._target = parse_url(url)
        self._authorization = authorization
        self._context = outbound_http.trusting(ca_pem)
        self._client: httpx2.AsyncClient | None = None

    async def check(self) -> None:
        """Look the name up and check where it leads."""
        with _told():
            await outbound_http.checked_address(self._settings, self._target)

    async def send(self, lines: Sequence[bytes]) -> None:
        """Post the lines."""
        target = self._target
        headers = {"Content-Type": "application/x-ndjson"}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization.reveal()
        if self._client is None:
            self._client = outbound_http.client(self._context)
        content = b"".join(line + b"\n" for line in lines)
        with _told():
            status = await outbound_http.post(self._client, self._settings, target, headers, content)
        if not 200 <= status < 300:
            raise TargetFailed(f"{target.host} answered {status}")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell of whatever keeps entries from being sent as sinks do."""
    try:
        yield
    except (Refused, Unavailable) as exc:
        raise TargetFailed(exc.message) from exc
