"""The one table from our errors to HTTP.

Answers are made from code and fields, never from ``str(exc)`` of something unknown, so that no trace
and no secret leaves.
"""

from __future__ import annotations

import msgspec

from secrethub.errors import NoHandler, NotFound, PermissionDenied, SecretHubError, TooManyRequests

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "invalid_path": 400,
    "cas_mismatch": 400,
    "login_failed": 400,
    "wrong_share": 400,
    "permission_denied": 403,
    "not_found": 404,
    "no_handler": 404,
    "unsupported_operation": 405,
    "conflict": 400,
    "too_large": 413,
    "too_many_requests": 429,
    "quota_exceeded": 429,
    "lease_quota_exceeded": 429,
    "sealed": 503,
    "rolled_back": 503,
    "not_initialised": 400,
    "unavailable": 503,
    "stale": 503,
    "unknown_key": 503,
    "integrity_failure": 500,
    "decryption_failed": 500,
    "misconfigured": 500,
    "internal": 500,
}


ANSWER_HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
"""What every answer carries, whatever it answers."""


class ErrorBody(msgspec.Struct, frozen=True):
    """What a failed request is answered."""

    errors: list[str]
    code: str
    request_id: str


def answer_error(exc: BaseException, request_id: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and extra headers for an error."""
    if not isinstance(exc, SecretHubError):
        body = ErrorBody(errors=["internal error"], code="internal", request_id=request_id)
        return 500, msgspec.json.encode(body), []
    status = STATUS.get(exc.code, 500)
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(exc, PermissionDenied):
        texts = ["permission denied"]
    elif isinstance(exc, NotFound) and not isinstance(exc, NoHandler):
        texts = []
    elif status == 500:
        texts = [f"internal error ({exc.code})"]
    else:
        texts = [exc.message or exc.code]
    if isinstance(exc, TooManyRequests):
        headers.append((b"retry-after", str(max(1, round(exc.retry_after))).encode()))
    return status, msgspec.json.encode(ErrorBody(errors=texts, code=exc.code, request_id=request_id)), headers
