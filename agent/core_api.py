"""The three calls of enrolment over Core's REST API, and what their failures mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from agent import http_client
from agent.http_client import Response, Tls
from secrethub.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    NotInitialised,
    PermissionDenied,
    Sealed,
    SecretHubError,
    TooManyRequests,
    Unavailable,
)

T = TypeVar("T")


class Begun(msgspec.Struct, frozen=True):
    """Answer to ``agents/enroll/begin``. The nonce proves that the request for a certificate is fresh."""

    nonce: str


class Enrolled(msgspec.Struct, frozen=True):
    """Answer to ``agents/enroll``."""

    agent_id: str
    certificate: str
    ca_chain: list[str] | str
    agent_urls: list[str]
    gateway_uri: str
    root_sha256: str


class _Auth(msgspec.Struct, frozen=True):
    client_token: str

    def __repr__(self) -> str:
        return "_Auth(…)"


class _Login(msgspec.Struct, frozen=True):
    auth: _Auth


class _Made(msgspec.Struct, frozen=True):
    creation_path: str


class _Looked(msgspec.Struct, frozen=True):
    data: _Made


class _SecretId(msgspec.Struct, frozen=True):
    secret_id: str

    def __repr__(self) -> str:
        return "_SecretId(…)"


class _Unwrapped(msgspec.Struct, frozen=True):
    data: _SecretId


class _Begun(msgspec.Struct, frozen=True):
    data: Begun


class _Enrolled(msgspec.Struct, frozen=True):
    data: Enrolled


class _Failure(msgspec.Struct, frozen=True):
    errors: list[str] = []
    code: str = ""


class CoreApi:
    """Core at one address.

    Args:
        url: ``https://host:port``.
        tls: whose certificate is believed.
    """

    def __init__(self, url: str, tls: Tls | None) -> None:
        self._url = url
        self._tls = tls

    async def login(self, mount: str, role_id: str, secret_id: str) -> str:
        """Log in with AppRole, mounted at ``mount`` below ``auth/``, and return the token."""
        body = {"role_id": role_id, "secret_id": secret_id}
        return (await self._post(f"auth/{mount}/login", body, None, _Login)).auth.client_token

    async def made_at(self, wrapping_token: str) -> str:
        """Return where a wrapping token says that it was made; this does not open it."""
        body = {"token": wrapping_token}
        return (await self._post("sys/wrapping/lookup", body, wrapping_token, _Looked)).data.creation_path

    async def unwrap(self, wrapping_token: str) -> str:
        """Open a wrapped SecretID and return it. It can be opened once."""
        return (await self._post("sys/wrapping/unwrap", {}, wrapping_token, _Unwrapped)).data.secret_id

    async def begin(self, token: str) -> Begun:
        """Ask for a nonce."""
        return (await self._post("agents/enroll/begin", {}, token, _Begun)).data

    async def enroll(self, token: str, body: Mapping[str, Any]) -> Enrolled:
        """Ask for the certificate."""
        return (await self._post("agents/enroll", body, token, _Enrolled)).data

    async def _post(self, path: str, body: Mapping[str, Any], token: str | None, answer: type[T]) -> T:
        response = await http_client.request(
            "POST",
            f"{self._url}/v1/{path}",
            tls=self._tls,
            headers={"X-Vault-Token": token} if token else {},
            body=msgspec.json.encode(body),
            timeout=30.0,
        )
        if response.status != 200:
            raise failure(path, response)
        try:
            return msgspec.json.decode(response.body, type=answer)
        except msgspec.MsgspecError as exc:
            raise Unavailable(f"{self._url}: {path} did not answer as Core does") from exc


_KINDS: dict[str, type[SecretHubError]] = {
    kind.code: kind
    for kind in (Conflict, NotFound, NotInitialised, PermissionDenied, Sealed, TooManyRequests, Unavailable)
}
_BY_STATUS: dict[int, type[SecretHubError]] = {
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    429: TooManyRequests,
    501: NotInitialised,
}


def failure(path: str, response: Response) -> SecretHubError:
    """Return the error that an answer other than success means."""
    try:
        told = msgspec.json.decode(response.body, type=_Failure)
    except msgspec.MsgspecError:
        told = _Failure()
    message = f"{path}: {'; '.join(told.errors) or f'HTTP {response.status}'}"
    kind = _KINDS.get(told.code) or _BY_STATUS.get(response.status)
    if kind is None:
        kind = Unavailable if response.status >= 500 else InvalidRequest
    return kind(message)
