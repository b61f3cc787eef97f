"""Requests and replies without IO: what both clients, blocking and asyncio, send and understand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from secrethub.client.errors import ApiError, BadSettings

MAX_TOKEN = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One call below ``/v1/``. Paths and query values may be secret-free only; bodies are hidden.

    Attributes:
        method: ``GET``, ``POST``, ``DELETE`` or ``PATCH``.
        path: as a person writes it, without a leading slash; quoted when sent.
        query: query parameters.
        body: sent as JSON, or None for no body.
        accept: the media type asked for.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    accept: str = "application/json"

    @property
    def safe(self) -> bool:
        """Whether sending it twice changes nothing."""
        return self.method == "GET"

    @property
    def target(self) -> str:
        """The path and the query, quoted for a URL.

        Raises:
            BadSettings: the path is empty or would leave ``/v1/``, or something is not Unicode text.
        """
        path = self.path.lstrip("/")
        if not path or any(part in {".", ".."} for part in path.split("/")):
            raise BadSettings(f"{self.path!r} is no path of a secret or an endpoint")
        place = quote(_utf8(path), safe="/-._~")
        if not self.query:
            return place
        values = {name: _utf8(value) for name, value in self.query.items()}
        return f"{place}?{urlencode(values, quote_via=quote)}"

    def content(self) -> bytes | None:
        """The body as sent.

        Raises:
            BadSettings: something in it is not Unicode text.
        """
        return None if self.body is None else _utf8(json.dumps(self.body, ensure_ascii=False))

    def headers(self, token: str | None, wrap_ttl: str | None = None) -> dict[str, str]:
        """The headers as sent; the token travels here and nowhere else.

        Args:
            token: of whoever asks.
            wrap_ttl: for how long the answer shall be kept for somebody else instead of given out.

        Raises:
            BadSettings: the token holds characters that no token has.
        """
        headers = {"Accept": self.accept, "X-Vault-Request": "true"}
        if self.body is not None:
            kind = "merge-patch+json" if self.method == "PATCH" else "json"
            headers["Content-Type"] = f"application/{kind}"
        if token is not None:
            if not token.isascii() or not token.isprintable() or " " in token or len(token) > MAX_TOKEN:
                raise BadSettings("the token holds characters that no token has")
            headers["X-Vault-Token"] = token
        if wrap_ttl is not None:
            if not wrap_ttl.isascii() or not wrap_ttl.isalnum():
                raise BadSettings("the time to keep an answer wrapped is written like 300 or 5m")
            headers["X-Vault-Wrap-TTL"] = wrap_ttl
        return headers


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Not its cause: that holds the whole text.
        raise BadSettings(
            "what is to be sent is not text (UTF-8); encode binary values, e.g. base64"
        ) from None


def read(path: str, **query: str | int | None) -> Request:
    """A request that reads ``path``; query parameters that are None are left out."""
    return Request(method="GET", path=path, query={k: str(v) for k, v in query.items() if v is not None})


def write(path: str, body: Mapping[str, Any] | None = None) -> Request:
    """A request that writes ``body`` to ``path``."""
    return Request(method="POST", path=path, body=body or {})


def patch(path: str, body: Mapping[str, Any]) -> Request:
    """A request that changes parts of ``path`` (JSON merge patch, RFC 7396)."""
    return Request(method="PATCH", path=path, body=body)


def delete(path: str) -> Request:
    """A request that deletes ``path``."""
    return Request(method="DELETE", path=path)


def listing(path: str) -> Request:
    """A request that lists what is below ``path``."""
    return Request(method="GET", path=path, query={"list": "true"})


def nothing_listed(error: ApiError) -> bool:
    """Whether an answer to a listing says that nothing is there, which is no failure."""
    return error.status == 404 and not error.errors


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A successful answer. Contents are hidden in ``repr``.

    Attributes:
        status: the HTTP status.
        data: the envelope's ``data``, or the whole answer where the endpoint uses no envelope.
        auth: the envelope's ``auth`` of a login or token creation, or None.
        wrap_info: the token that opens the answer, where it was asked to be kept, or None.
        warnings: what the server wants the caller to know.
        request_id: finds the request in the audit ledger.
        lease_id: of the lease that the answer is about, or empty.
        renewable: whether that can be renewed.
        lease_duration: seconds that it lasts.
    """

    status: int
    data: Mapping[str, Any] = field(repr=False)
    auth: Mapping[str, Any] | None = field(default=None, repr=False)
    wrap_info: Mapping[str, Any] | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()
    request_id: str = ""
    lease_id: str = ""
    renewable: bool = False
    lease_duration: int = 0


def interpret(status: int, headers: Mapping[str, str], content: bytes) -> Reply:
    """Understand an answer.

    Raises:
        ApiError: it is an error, or not what SecretHub would say.
    """
    body = _object(content)
    request_id = _text(body.get("request_id")) or headers.get("x-request-id", "")
    data = body.get("data") if "request_id" in body else body
    if not 200 <= status < 300:
        raise ApiError(
            status,
            _text(body.get("code")),
            _texts(body.get("errors")),
            request_id,
            data if isinstance(data, dict) and "errors" not in data else None,
            _seconds(headers.get("retry-after")),
        )
    if content.strip() and not body:
        raise ApiError(
            status, "not_json", ("the answer is not JSON: is this a SecretHub server?",), request_id
        )
    auth, wrapped = body.get("auth"), body.get("wrap_info")
    # An answer without an envelope may have such keys of its own.
    envelope = body if "request_id" in body else {}
    lasts = envelope.get("lease_duration")
    return Reply(
        status=status,
        data=data if isinstance(data, dict) else {},
        auth=auth if isinstance(auth, dict) else None,
        wrap_info=wrapped if isinstance(wrapped, dict) else None,
        warnings=_texts(body.get("warnings")),
        request_id=request_id,
        lease_id=_text(envelope.get("lease_id")),
        renewable=envelope.get("renewable") is True,
        lease_duration=lasts if isinstance(lasts, int) else 0,
    )


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _seconds(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
