"""Initialising and unsealing a development installation, through its own API as any client would."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from cluster.dev_file import Keys, Root
from cluster.folders import write_private
from secrethub.errors import InvalidRequest, Misconfigured, Unavailable
from secrethub.pki.chain import fingerprint, from_pem, to_pem

_SHARES = 5
_THRESHOLD = 3
_PATIENCE = 60.0
"""Seconds until the gateways have their keys."""
_LOOK_SECONDS = 0.1


class DevSeal:
    """The seal of a development installation and the file with its keys."""

    def __init__(self, api: str, kept: Path, ca_file: Path) -> None:
        """Prepare.

        Args:
            api: the plain HTTP door.
            kept: 0600 file with the keys that init gave out.
            ca_file: where the root certificate is written to.
        """
        self._api = f"{api}/v1"
        self._kept = kept
        self._ca_file = ca_file

    async def open(self) -> Keys | None:
        """Initialise if nobody has, unseal if it is sealed.

        Returns:
            The keys; None when somebody else initialised and kept them.

        Raises:
            Misconfigured: it is sealed, and the keys are not here, or are others.
            Unavailable: the installation does not do as it should.
        """
        status = await self._call("GET", "sys/seal-status")
        if not status["initialized"]:
            await self._initialise()
        keys = self._load()
        if (await self._call("GET", "sys/seal-status"))["sealed"]:
            await self._unseal(keys)
        await self.wait_until_open(_PATIENCE)
        return keys

    async def wait_until_open(self, patience: float | None = None) -> None:
        """Wait until requests are served.

        Args:
            patience: seconds; None waits for as long as it takes.

        Raises:
            Unavailable: time is over.
        """
        try:
            async with asyncio.timeout(patience), httpx2.AsyncClient(trust_env=False) as client:
                while await self._health(client) != httpx2.codes.OK:  # noqa: ASYNC110 - others' state
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise Unavailable("SecretHub is unsealed, but its gateways have no keys") from None

    async def root_certificate(self) -> Root:
        """Fetch the built-in root's certificate and keep it in a file."""
        chain = from_pem((await self._call("GET", "pki/cert/ca_chain"))["data"]["certificate"])
        self._ca_file.write_text(to_pem(chain[-1]), "ascii")
        return Root(file=self._ca_file, sha256=fingerprint(chain[-1]))

    async def _initialise(self) -> None:
        body = {"secret_shares": _SHARES, "secret_threshold": _THRESHOLD}
        made = await self._call("PUT", "sys/init", body)
        kept = {"root_token": made["root_token"], "unseal_keys": made["keys_base64"]}
        write_private(self._kept, msgspec.json.encode(kept).decode())

    def _load(self) -> Keys | None:
        if not self._kept.exists():
            return None
        kept = msgspec.json.decode(self._kept.read_bytes())
        return Keys(root_token=kept["root_token"], unseal_keys=tuple(kept["unseal_keys"]))

    async def _unseal(self, keys: Keys | None) -> None:
        if keys is None:
            raise Misconfigured(
                f"the database is sealed and {self._kept} is not there: "
                "start with --uninitialised and unseal it yourself"
            )
        await self._call("PUT", "sys/unseal", {"reset": True})
        with contextlib.suppress(InvalidRequest):
            for key in keys.unseal_keys:
                answer = await self._call("PUT", "sys/unseal", {"key": key})
                if not answer["sealed"]:
                    return
        raise Misconfigured(
            f"the unseal keys in {self._kept} do not open the seal, as after a rekey: "
            "put those there that do, or start with --uninitialised and unseal it yourself"
        )

    async def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        document: dict[str, Any] = (await self._send(method, path, body)).json()
        return document

    async def _send(self, method: str, path: str, body: object = None) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=_PATIENCE) as client:
            try:
                answer = await client.request(method, f"{self._api}/{path}", json=body)
            except httpx2.TransportError as exc:
                raise Unavailable(f"{path}: no answer") from exc
        if answer.status_code != httpx2.codes.OK:
            kind = InvalidRequest if answer.status_code == httpx2.codes.BAD_REQUEST else Unavailable
            raise kind(f"{path}: {answer.status_code} {answer.text[:500]}")
        return answer

    async def _health(self, client: httpx2.AsyncClient) -> int:
        try:
            return (await client.get(f"{self._api}/sys/health", timeout=5.0)).status_code
        except httpx2.TransportError:
            return 0
