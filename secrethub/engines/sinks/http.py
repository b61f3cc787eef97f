"""An HTTP collector: entries as JSON Lines in the body of a POST, taken when it answers 2xx."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence

import httpx2
import msgspec

from secrethub.engines import outbound_http
from secrethub.engines.outbound import Refused, parse_url
from secrethub.engines.sinks.target import TargetFailed, without_detail
from secrethub.errors import Unavailable
from secrethub.node import NodeSettings
from secrethub.sensitive import Sensitive

_SECONDS = 20.0
"""For everything that is sent at once: the sink is claimed for little longer."""
_TOO_LARGE = 413

_log = logging.getLogger(__name__)


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
        self._warned = False

    async def check(self) -> None:
        """Look the name up and check where it leads."""
        with _told():
            await outbound_http.checked_address(self._settings, self._target)

    async def send(self, lines: Sequence[bytes]) -> None:
        """Post the lines: those that are too large together in parts, of one alone all but its detail."""
        if self._client is None:
            self._client = outbound_http.client(self._context)
        until = asyncio.get_running_loop().time() + _SECONDS
        parts = [lines]
        while parts:
            part = parts.pop()
            status = await self._posted(self._client, part, until)
            if status == _TOO_LARGE and len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            alone = ""
            if status == _TOO_LARGE:
                self._warn(part[0])
                status = await self._posted(self._client, [without_detail(part[0])], until)
                alone = f" to {_named(part[0])} alone"
            if not 200 <= status < 300:
                raise TargetFailed(f"{self._target.host} answered {status}{alone}")

    async def _posted(self, client: httpx2.AsyncClient, lines: Sequence[bytes], until: float) -> int:
        headers = {"Content-Type": "application/x-ndjson"}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization.reveal()
        content = b"".join(line + b"\n" for line in lines)
        within = max(0.0, until - asyncio.get_running_loop().time())
        with _told():
            return await outbound_http.post(
                client, self._settings, self._target, headers, content, within=within
            )

    def _warn(self, line: bytes) -> None:
        """Say once what entries are sent without."""
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s answered %d to %s alone, which is sent without its detail, as are all others that large",
                self._target.host,
                _TOO_LARGE,
                _named(line),
            )

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


def _named(line: bytes) -> str:
    """Return how people are told of an entry."""
    entry = msgspec.json.decode(line)
    return f"entry {entry['number']} of stream {entry['stream']}"
