"""Answers as HTTP has them: status, headers and body."""

from __future__ import annotations

import logging
from dataclasses import asdict

import msgspec

from secrethub.engines.engine import Answer
from secrethub.errors import SecretHubError
from secrethub.wire.envelope import encode_envelope
from serve.errors import answer_error
from serve.request import Headers

_log = logging.getLogger(__name__)


def failure(exc: Exception, request_id: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and extra headers of an error, and log what nobody caused by asking."""
    status, body, extra = answer_error(exc, request_id)
    if not isinstance(exc, SecretHubError):
        _log.error("request %s failed", request_id, exc_info=exc)
    elif status == 500:
        _log.error("request %s failed: %s: %s", request_id, exc.code, exc)
    return status, body, extra


def encoded(answer: Answer, path: str, request_id: str) -> tuple[int, bytes]:
    """Return status and body of an answer; the body of an answer with nothing to say is empty."""
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


def over(headers: Headers, extra: Headers) -> Headers:
    """Return the headers that every answer has, except those that this one has differently."""
    if not extra:
        return headers
    names = {name for name, _ in extra}
    return [*(pair for pair in headers if pair[0] not in names), *extra]
