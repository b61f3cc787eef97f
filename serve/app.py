"""The ASGI application: HTTP becomes a :class:`~secrethub.operations.call.Call`, its answer becomes HTTP.

The same application answers on every door; the door is part of the request. No routing is done here
beyond ``/v1/``: mounts and declared operations decide (``secrethub/operations/perform.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import msgspec

from secrethub.engines.engine import Answer, Method
from secrethub.engines.runtime import Core
from secrethub.errors import NotFound, SecretHubError, UnsupportedOperation
from secrethub.ids import new_uuid
from secrethub.operations.call import Call
from secrethub.operations.perform import perform
from secrethub.operations.unread import refused_unread
from secrethub.policy.names import fold_policy_path
from secrethub.wire.canonical_path import parse_path
from secrethub.wire.envelope import encode_envelope
from serve.client_address import ClientAddress
from serve.client_certificates import PEER
from serve.doors import HostCheck
from serve.errors import ANSWER_HEADERS, answer_error
from serve.flow import Send, send_flow
from serve.metrics import METRICS_TYPE
from serve.request import (
    Headers,
    Receive,
    check_headers,
    credential_of,
    has_body,
    read_body,
    read_query,
    single_headers,
    wrap_ttl_of,
)
from serve.timing import USUAL, Timing

Scope = MutableMapping[str, Any]

_METHODS: dict[str, Method] = {
    "GET": "read",
    "HEAD": "read",
    "POST": "write",
    "PUT": "write",
    "DELETE": "delete",
    "PATCH": "patch",
    "LIST": "list",
}
_TRUE = frozenset({"true", "1", "t", "T", "TRUE", "True"})
_BODILESS = frozenset({204, 205, 304})
_LENGTHLESS = frozenset({204, 304})
_TLS_HEADERS = [*ANSWER_HEADERS, (b"strict-transport-security", b"max-age=31536000")]

_log = logging.getLogger(__name__)


class Application:
    """One door's application."""

    def __init__(
        self,
        core: Core,
        door: str,
        *,
        metrics_text: Callable[[], Awaitable[bytes]] | None = None,
        timing: Timing = USUAL,
    ) -> None:
        """Prepare.

        Args:
            core: this process.
            door: ``http``, ``tls`` or ``serve``.
            metrics_text: the node's metrics, for ``sys/metrics``.
            timing: how long it waits.
        """
        self._core = core
        self._door = door
        self._metrics_text = metrics_text
        self._timing = timing
        self._hosts = None if door == "tls" else HostCheck(core.settings.allowed_hosts)
        self._clients = ClientAddress(core.settings.trusted_proxies)
        self._headers = _TLS_HEADERS if door == "tls" else ANSWER_HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request_id = new_uuid()
        delivered = None
        try:
            status, body, extra, delivered = await self._answer(scope, receive, send, request_id)
            if status == 0:
                return
        except asyncio.CancelledError:
            raise
        except SecretHubError as exc:
            status, body, extra = answer_error(exc, request_id)
            if status == 500:
                _log.error("request %s failed: %s: %s", request_id, exc.code, exc)
        except Exception as exc:  # noqa: BLE001 - the outermost edge
            # Whatever goes wrong inside, the client gets our error and never a trace.
            _log.exception("request %s failed", request_id)
            status, body, extra = answer_error(exc, request_id)
        if status in _BODILESS:
            # A client would take it for the beginning of the next answer.
            body = b""
        headers = [*_over(self._headers, extra), (b"x-request-id", request_id.encode())]
        if status not in _LENGTHLESS:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        if delivered is not None:
            try:
                await delivered()
            except SecretHubError as exc:
                _log.warning("after request %s was answered: %s: %s", request_id, exc.code, exc)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> tuple[int, bytes, list[tuple[bytes, bytes]], Callable[[], Awaitable[None]] | None]:
        raw = scope.get("raw_path") or quote(scope["path"], safe="/").encode()
        try:
            call = await self._read(scope, receive, request_id, raw)
        except SecretHubError as exc:
            await refused_unread(
                self._core,
                exc,
                path=raw.removeprefix(b"/v1/").decode("ascii", "backslashreplace"),
                client_address=self._clients.of(scope.get("client"), self._door, scope["headers"]),
                door=self._door,
                request_id=request_id,
            )
            raise
        if call.path == "sys/metrics" and call.method == "read" and self._metrics_text is not None:
            return 200, await self._metrics_text(), [METRICS_TYPE], None
        answer = await perform(self._core, call)
        if answer.stream is not None:
            await self._stream(answer, send, request_id)
            return 0, b"", [], None
        if answer.flow is not None:
            headers = [(b"content-type", answer.flow.media_type.encode("ascii"))]
            headers = [*_over(self._headers, headers), (b"x-request-id", request_id.encode())]
            await send_flow(self._core, call, answer.flow, headers, receive, send)
            return 0, b"", [], None
        if answer.document is not None:
            kind = (b"content-type", answer.document.media_type.encode("ascii"))
            return 200, answer.document.content, [kind], None
        return *_encoded(answer, call.path, request_id), [], answer.delivered

    async def _read(self, scope: Scope, receive: Receive, request_id: str, raw: bytes) -> Call:
        """Return what is asked for.

        Raises:
            SecretHubError: it cannot be understood, or asks for what nobody here does.
        """
        headers = single_headers(scope["headers"])
        if self._hosts is not None:
            self._hosts.check(headers.get(b"host"), headers.get(b"origin"))
        if not raw.startswith(b"/v1/"):
            raise NotFound("the API is below /v1/")
        path = fold_policy_path(parse_path(raw[4:]))
        query = read_query(scope["query_string"]) if scope.get("query_string") else {}
        method = _METHODS.get(scope["method"])
        if method is None:
            raise UnsupportedOperation(f"method {scope['method']} is not known here")
        if method == "read" and query.pop("list", "") in _TRUE:
            method = "list"
        check_headers(headers)
        body = b""
        if has_body(headers):
            body = await read_body(receive, headers, self._core.settings.max_body, self._timing.body)
        return Call(
            method=method,
            path=path,
            credential=credential_of(headers),
            client_address=self._clients.of(scope.get("client"), self._door, scope["headers"]),
            door=self._door,
            peer=scope.get(PEER, ()) if self._door == "tls" else (),
            request_id=request_id,
            streaming="application/x-ndjson" in headers.get(b"accept", ""),
            wrap_ttl=wrap_ttl_of(headers),
            body=body,
            query=query,
        )

    async def _stream(self, answer: Answer, send: Send, request_id: str) -> None:
        """Send one JSON value a line. A failure on the way is the last line."""
        assert answer.stream is not None
        headers = [h for h in self._headers if h[0] != b"content-type"]
        headers += [(b"content-type", b"application/x-ndjson"), (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for value in answer.stream:
                line = msgspec.json.encode(value) + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
        except SecretHubError as exc:
            _, line, _ = answer_error(exc, request_id)
            await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _encoded(answer: Answer, path: str, request_id: str) -> tuple[int, bytes]:
    if answer.bare:
        return answer.code or 200, msgspec.json.encode(answer.data)
    told = answer.data, answer.auth, answer.wrap_info, answer.warnings or None, answer.lease_id or None
    if all(part is None for part in told):
        return 204, b""
    auth = None
    if answer.auth is not None:
        given = answer.auth
        auth = {
            "client_token": given.client_token,
            "accessor": given.accessor,
            "policies": given.policies,
            "token_policies": given.token_policies,
            "metadata": given.metadata or None,
            "lease_duration": given.lease_duration,
            "renewable": given.renewable,
            "entity_id": given.entity_id,
            "token_type": given.token_type,
            "orphan": given.orphan,
            "num_uses": given.num_uses,
        }
    body = encode_envelope(
        request_id,
        data=answer.data,
        auth=auth,
        wrap_info=None if answer.wrap_info is None else asdict(answer.wrap_info),
        warnings=answer.warnings or None,
        lease_id=answer.lease_id,
        renewable=answer.renewable,
        lease_duration=answer.lease_duration,
        repeat_at_top=path.startswith("sys/"),
    )
    return 404 if answer.missing else answer.code or 200, body


def _over(headers: Headers, extra: Headers) -> Headers:
    """Return the headers that every answer has, except those that this one has differently."""
    if not extra:
        return headers
    names = {name for name, _ in extra}
    return [*(pair for pair in headers if pair[0] not in names), *extra]


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
