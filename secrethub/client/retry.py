"""When to try again: pure rules, driven by both clients.

Only requests that change nothing are repeated, and only when the server could not be reached, was
overloaded or said that it will be back. A sealed server is not: that needs a person.
"""

from __future__ import annotations

from secrethub.client.errors import ApiError, ClientError, NotReached
from secrethub.client.messages import Request

_PASSING = frozenset({429, 502, 503, 504})
_LASTING = frozenset({"sealed", "not_initialised"})
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


def pause(request: Request, error: ClientError, attempt: int, attempts: int, jitter: float) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up.

    Args:
        request: what failed.
        error: how it failed.
        attempt: number of this attempt, from 1.
        attempts: how many there may be.
        jitter: a random number between 0 and 1, so that many clients do not return at once.
    """
    if attempt >= attempts or not request.safe:
        return None
    if isinstance(error, ApiError):
        if error.status not in _PASSING or error.code in _LASTING:
            return None
        if error.retry_after is not None:
            return error.retry_after + jitter * _FIRST_PAUSE if error.retry_after <= _LONGEST_PAUSE else None
    elif not isinstance(error, NotReached):
        return None
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * jitter)
