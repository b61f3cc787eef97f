"""What local applications may ask over the socket, in the shapes that Vault's clients know.

============================================  ==========================================
``GET /v1/secrets/<path>[?version=N]``        a secret, ``data.data`` and ``data.metadata``
``GET /v1/secret/data/<path>[?version=N]``    the same, by the path of Vault's KV version 2
``GET /v1/<path where they are made>``        credentials, ``data``, ``lease_id`` and ``lease_duration``
``GET /v1/sys/internal/ui/mounts/<path>``     what ``vault kv`` asks first
``GET /v1/sys/health``                        for everybody: does the agent work
``GET /v1/agent/status``                      how it does, for known applications and root
============================================  ==========================================

A request needs no token: the kernel says who asks, ``[[socket.allow]]`` says what that application
may read, and Core decides on top of it with the agent's own rights.
"""

from __future__ import annotations

import logging
import math
import os
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from agent.credentials import Credentials, Given
from agent.grants import Application, Grants, Peer
from agent.http1 import RequestHead
from agent.ledger import LocalLedger
from agent.reader import Reader, Served
from agent.socket_server import Reply, failure
from secrethub import __version__
from secrethub.errors import InvalidPath, InvalidRequest, PermissionDenied, SecretHubError
from secrethub.wire.canonical_path import parse_path
from secrethub.wire.envelope import encode_envelope

_DATA = re.compile(r"(?:secret/data|secrets)/(.+)")
_MOUNTS = re.compile(r"sys/internal/ui/mounts/(secrets?)(?:/.*)?")
_STATUS = {
    "invalid_request": 400,
    "invalid_path": 400,
    "permission_denied": 403,
    "not_found": 404,
    "unsupported_operation": 405,
    "too_large": 413,
    "too_many_requests": 429,
    "unavailable": 503,
    "sealed": 503,
    "not_initialised": 503,
    "stale": 503,
}
_BEHIND = "Core cannot be reached: this value may be out of date"

_log = logging.getLogger(__name__)


class SocketApi:
    """Answers the requests of local applications.

    Args:
        grants: who may read what.
        reader: where secrets come from.
        credentials: where what is made for applications comes from.
        ledger: notes what Core does not hear of.
        status: describes the agent, without secrets.
        connected: whether there is a conversation with Core.
    """

    def __init__(
        self,
        grants: Grants,
        reader: Reader,
        credentials: Credentials,
        ledger: LocalLedger,
        status: Callable[[], Mapping[str, Any]],
        connected: Callable[[], bool],
    ) -> None:
        self._grants = grants
        self._reader = reader
        self._credentials = credentials
        self._ledger = ledger
        self._status = status
        self._connected = connected

    async def handle(self, peer: Peer | None, head: RequestHead) -> Reply:
        """Answer one request."""
        try:
            return await self._route(peer, head)
        except SecretHubError as exc:
            return _refusal(exc)
        except Exception as exc:  # noqa: BLE001 - a defect; its text may quote a value, its kind may not
            _log.error("a request failed", extra={"error": type(exc).__name__})
            return failure(500, "internal", "internal error")

    async def _route(self, peer: Peer | None, head: RequestHead) -> Reply:
        raw, _, query = head.target.partition(b"?")
        if not raw.startswith(b"/v1/"):
            raise InvalidPath("paths begin with /v1/")
        path = parse_path(raw.removeprefix(b"/v1/"))
        if head.method == "HEAD" and path != "sys/health":
            return failure(405, "unsupported_operation", "only GET is supported")
        if head.method not in {"GET", "HEAD"}:
            return failure(405, "unsupported_operation", "only GET is supported")
        if path == "sys/health":
            return self._health()
        application = None if peer is None else self._grants.application(peer)
        if path == "agent/status":
            return self._describe(peer, application)
        if peer is None or application is None:
            _log.warning("refused", extra={"path": path, **_who(peer)})
            raise PermissionDenied
        _check(head.headers)
        if mount := _MOUNTS.fullmatch(path):
            return _mount(mount[1])
        if application.may_have_made(path):
            return await self._make(peer, application, path)
        match = _DATA.fullmatch(path)
        if match is None:
            return failure(404, "not_found", "the agent serves no such path")
        return await self._read(peer, application, f"secrets/{match[1]}", _version(query))

    async def _read(self, peer: Peer, application: Application, path: str, version: int | None) -> Reply:
        if not application.may_read(path):
            _log.warning("refused", extra={"path": path, **_who(peer)})
            raise PermissionDenied
        served = await self._reader.read(application.name, path, version)
        if served.source != "core":
            self._ledger.note(peer, application.name, path, served.entry.version, served.source)
        return _secret(served)

    async def _make(self, peer: Peer, application: Application, path: str) -> Reply:
        given = await self._credentials.get(application.name, path)
        if given.source != "core":
            self._ledger.note(peer, application.name, path, 0, given.source)
        return _made(given)

    def _health(self) -> Reply:
        connected = self._connected()
        body = {
            "initialized": True,
            "sealed": False,
            "standby": not connected,
            "server_time_utc": int(datetime.now(UTC).timestamp()),
            "version": __version__,
            "core_connected": connected,
        }
        return Reply(status=200 if connected else 503, body=msgspec.json.encode(body))

    def _describe(self, peer: Peer | None, application: Application | None) -> Reply:
        trusted = peer is not None and peer.uid in {0, os.geteuid()}
        if not trusted and application is None:
            raise PermissionDenied
        return Reply(status=200, body=encode_envelope(str(uuid.uuid4()), self._status()))


def _secret(served: Served) -> Reply:
    entry = served.entry
    data = {
        "data": msgspec.Raw(entry.data),
        "metadata": {
            "created_time": entry.created_time,
            "custom_metadata": None,
            "deletion_time": "",
            "destroyed": False,
            "version": entry.version,
        },
    }
    warnings = [_BEHIND] if served.source == "stale" else None
    return Reply(status=200, body=encode_envelope(str(uuid.uuid4()), data, warnings=warnings))


def _made(given: Given) -> Reply:
    """Return credentials; the agent renews them, so whoever has them cannot."""
    body = encode_envelope(
        str(uuid.uuid4()),
        msgspec.json.decode(given.lease.data),
        lease_id=given.lease.lease_id,
        lease_duration=math.floor(given.left),
    )
    return Reply(status=200, body=body)


def _mount(name: str) -> Reply:
    kind = "kv" if name == "secret" else "flat"
    data = {"path": f"{name}/", "type": kind, "options": {"version": "2"}}
    return Reply(status=200, body=encode_envelope(str(uuid.uuid4()), data))


def _check(headers: Mapping[str, str]) -> None:
    """Refuse what a header asks for and the agent does not do.

    Raises:
        InvalidRequest: a wrapped answer, which would be given in clear, or a namespace.
    """
    if headers.get("x-vault-wrap-ttl", "0") not in {"", "0", "0s"}:
        raise InvalidRequest("the agent wraps no answers: ask Core")
    if headers.get("x-vault-namespace", "").strip("/") not in {"", "root"}:
        raise InvalidRequest("there are no namespaces")


def _version(query: bytes) -> int | None:
    """Return the version that a query asks for; 0 and nothing mean the newest.

    Raises:
        InvalidRequest: it is no version, a listing is asked for, or a name is given twice.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=16)
    except ValueError as exc:
        raise InvalidRequest("the query cannot be read") from exc
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidRequest("the query string has a name twice")
    if fields.get("list", "false") != "false":
        raise InvalidRequest("the agent does not list secrets")
    text = fields.get("version", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidRequest("version must be a whole number")
    return int(text) or None


def _refusal(exc: SecretHubError) -> Reply:
    status = _STATUS.get(exc.code, 500)
    if status == 404:
        return failure(404, exc.code)
    if status == 403:
        return failure(403, exc.code, "permission denied")
    return failure(status, exc.code, "internal error" if status == 500 else str(exc))


def _who(peer: Peer | None) -> dict[str, object]:
    if peer is None:
        return {"peer": "unknown"}
    return {"pid": peer.pid, "uid": peer.uid, "unit": peer.unit, "executable": peer.executable}
