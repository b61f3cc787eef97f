"""What an ``error`` message of Core means here, and which failures a cached value may bridge."""

from __future__ import annotations

from secrethub import errors
from secrethub.errors import SecretHubError
from secrethub.wire.messages import Error

PASSING = (
    errors.Unavailable,
    errors.Sealed,
    errors.NotInitialised,
    errors.TooManyRequests,
    errors.Stale,
)
"""Core cannot answer just now: it says nothing about the secret."""

_BY_CODE: dict[str, type[SecretHubError]] = {
    kind.code: kind
    for kind in (
        *PASSING,
        errors.InvalidRequest,
        errors.InvalidPath,
        errors.NotFound,
        errors.UnsupportedOperation,
        errors.TooLarge,
        errors.Conflict,
    )
}


def error_of(message: Error) -> SecretHubError:
    """Return the error that Core's answer stands for; an unknown code is an error without a kind."""
    if message.code == errors.PermissionDenied.code:
        return errors.PermissionDenied(message.message or "permission denied")
    kind = _BY_CODE.get(message.code, SecretHubError)
    return kind(message.message or message.code)
