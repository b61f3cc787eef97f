"""The ASGI application: HTTP becomes a :class:`~secrethub.operations.call.Call`, its answer becomes HTTP.

The same application answers on every door; the door is part of the request. No routing is done here
beyond ``/v1/``: mounts and declared operations decide (``secrethub/operations/perform.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast
from urllib.parse import quote

import msgspec

from secrethub.engines.engine import Answer, Method
from secrethub.engines.runtime import Core
from secrethub.errors import NotFound, SecretHubError, UnsupportedOperation
from secrethub.ids import new_uuid
from secrethub.operations.call import Call
from secrethub.operations.perform import perform
from secrethub.operations.reread import Reread
from secrethub.operations.unread import refused_unread
from secrethub.policy.names import fold_policy_path
from secrethub.wire.canonical_path import parse_path
from serve.again import Again
from serve.answers import encoded, failure, over
from serve.at_once import AtOnce
from serve.client_address import ClientAddress
from serve.client_certificates import PEER
from serve.cycle import TRANSPORT, Cycle, header_lines
from serve.doors import HostCheck
from serve.errors import ANSWER_HEADERS
from serve.flow import Send, send_flow
from serve.metrics import METRICS_TYPE
from serve.request import (
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
        self._lines = header_lines(self._headers)
        self.at_once = AtOnce(self, core)

    def call_of(self, cycle: Cycle | Again, request_id: str) -> Call | None:
        """Return what a request without a body asks for; None when it has one or cannot be understood."""
        try:
            if isinstance(cycle, Again):
                return msgspec.structs.replace(cycle.like, path=_path_of(cycle.path), request_id=request_id)
            scope = cast("Scope", cycle.scope)
            headers = single_headers(scope["headers"])
            if has_body(headers):
                return None
            call = self._call(scope, headers, request_id, scope["raw_path"])
        except SecretHubError:
            return None  # it fails on the whole way again, and is written down there
        if cycle.lines is not None and cycle.keep_alive:
            cycle.said.keep(cycle.lines, call)
        return call

    def encoded(self, read: Reread) -> tuple[int, bytes, bytes]:
        """Return status, header lines and body of the answer to a read at hand."""
        request_id = read.call.request_id
        status, body = encoded(read.answer, read.call.path, request_id)
        return status, self._head(self._lines, request_id, body), body

    def failed(self, exc: Exception, request_id: str) -> tuple[int, bytes, bytes]:
        """Return the same of a read that failed."""
        status, body, extra = failure(exc, request_id)
        return status, self._head(header_lines(over(self._headers, extra)), request_id, body), body

    def _head(self, lines: bytes, request_id: str, body: bytes) -> bytes:
        return b"%bx-request-id: %b\r\ncontent-length: %d\r\n" % (lines, request_id.encode(), len(body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request_id = new_uuid()
        answer = None
        try:
            status, body, extra, answer = await self._answer(scope, receive, send, request_id)
            if status == 0:
                return
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - the outermost edge
            # Whatever goes wrong inside, the client gets our error and never a trace.
            status, body, extra = failure(exc, request_id)
        if status in _BODILESS:
            # A client would take it for the beginning of the next answer.
            body = b""
        headers = [*over(self._headers, extra), (b"x-request-id", request_id.encode())]
        if status not in _LENGTHLESS:
            headers.append((b"content-length", str(len(body)).encode()))
        untold = scope["method"] == "HEAD" or _is_gone(scope)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        after = None
        if answer is not None:
            after = answer.undelivered if untold else answer.delivered
        if after is not None:
            try:
                await after()
            except SecretHubError as exc:
                _log.warning("after request %s was answered: %s: %s", request_id, exc.code, exc)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> tuple[int, bytes, list[tuple[bytes, bytes]], Answer | None]:
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
        if answer.flow is not None:
            headers = [(b"content-type", answer.flow.media_type.encode("ascii"))]
            headers = [*over(self._headers, headers), (b"x-request-id", request_id.encode())]
            await send_flow(self._core, call, answer.flow, headers, receive, send)
            return 0, b"", [], None
        if answer.document is not None:
            kind = (b"content-type", answer.document.media_type.encode("ascii"))
            return 200, answer.document.content, [kind], None
        return *encoded(answer, call.path, request_id), [], answer

    async def _read(self, scope: Scope, receive: Receive, request_id: str, raw: bytes) -> Call:
        """Return what is asked for.

        Raises:
            SecretHubError: it cannot be understood, or asks for what nobody here does.
        """
        headers = single_headers(scope["headers"])
        call = self._call(scope, headers, request_id, raw)
        if not has_body(headers):
            return call
        body = await read_body(receive, headers, self._core.settings.max_body, self._timing.body)
        return msgspec.structs.replace(call, body=body)

    def _call(self, scope: Scope, headers: Mapping[bytes, str], request_id: str, raw: bytes) -> Call:
        """Return the same without its body."""
        if self._hosts is not None:
            self._hosts.check(headers.get(b"host"), headers.get(b"origin"))
        path = _path_of(raw)
        query = read_query(scope["query_string"]) if scope.get("query_string") else {}
        method = _METHODS.get(scope["method"])
        if method is None:
            raise UnsupportedOperation(f"method {scope['method']} is not known here")
        if method == "read" and query.pop("list", "") in _TRUE:
            method = "list"
        check_headers(headers)
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
            query=query,
        )


def _path_of(raw: bytes) -> str:
    """Return the canonical path that a request's raw one stands for.

    Raises:
        NotFound: it is not below ``/v1/``.
        InvalidRequest: it has no canonical form.
    """
    if not raw.startswith(b"/v1/"):
        raise NotFound("the API is below /v1/")
    return fold_policy_path(parse_path(raw[4:]))


def _is_gone(scope: Scope) -> bool:
    """Tell whether the client has gone away: what is written to it then is lost in silence."""
    transport = scope.get(TRANSPORT)
    return transport is not None and transport.is_closing()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
