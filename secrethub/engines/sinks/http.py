"""An HTTP collector: entries as JSON Lines in the body of a POST, taken when it answers 2xx."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import httpx2

from secrethub.engines.outbound import Refused, allowed_addresses, parse_url
from secrethub.engines.sinks.target import TargetFailed
from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings
from secrethub.sensitive import Sensitive

_SECONDS = 10.0


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
        try:
            self._context = ssl.create_default_context(cadata=ca_pem or None)
        except (ssl.SSLError, ValueError) as exc:
            raise InvalidRequest("ca_pem holds no certificates") from exc
        self._client: httpx2.AsyncClient | None = None

    async def check(self) -> None:
        """Look the name up and check where it leads."""
        await self._address()

    async def send(self, lines: Sequence[bytes]) -> None:
        """Post the lines."""
        target = self._target
        address = await self._address()
        headers = {"Host": target.authority, "Content-Type": "application/x-ndjson"}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization.reveal()
        if self._client is None:
            self._client = httpx2.AsyncClient(
                verify=self._context, timeout=_SECONDS, trust_env=False, follow_redirects=False
            )
        host = f"[{address}]" if ":" in address else address
        try:
            # To the address that was checked; the certificate must be the name's.
            async with self._client.stream(
                "POST",
                f"{target.scheme}://{host}:{target.port}{target.path}",
                headers=headers,
                content=b"".join(line + b"\n" for line in lines),
                extensions={"sni_hostname": target.host},
            ) as answer:
                status = answer.status_code
        except (httpx2.HTTPError, OSError) as exc:
            raise TargetFailed(f"{target.host}: {type(exc).__name__}") from exc
        if not 200 <= status < 300:
            raise TargetFailed(f"{target.host} answered {status}")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _address(self) -> str:
        target = self._target
        try:
            found = await allowed_addresses(
                self._settings, target.host, target.port, secure=target.scheme == "https"
            )
        except Refused as exc:
            raise TargetFailed(exc.message) from exc
        except OSError as exc:
            raise TargetFailed(f"the name {target.host} is not known") from exc
        return str(found[0])
