"""Text that callers choose and others read later: names for people, descriptions, metadata.

It ends up in the ledger, in answers and in PostgreSQL, which stores no NUL. So it is bounded and has
no control characters; nothing in it can forge a line of a log.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from secrethub.errors import InvalidRequest

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_MOST = 64
_KEY_LENGTH = 128
_VALUE_LENGTH = 512


def plain_text(value: str, name: str, limit: int) -> str:
    """Return ``value`` if it is at most ``limit`` characters long and has no control character.

    Raises:
        InvalidRequest: it is not; the message has ``name`` instead of the value.
    """
    if len(value) > limit:
        raise InvalidRequest(f"{name} is longer than {limit} characters")
    if _CONTROL.search(value) is not None:
        raise InvalidRequest(f"{name} has a control character")
    return value


def plain_document(given: str) -> str:
    """Return text that may have come in base64, in lines too, which spares people the quoting."""
    try:
        return base64.b64decode("".join(given.splitlines()), validate=True).decode()
    except ValueError:
        return given  # no policy and no metadata is base64 by itself: each has quotes, or = within


def text_map(given: Mapping[str, Any] | None, name: str) -> dict[str, str]:
    """Return metadata as text by text; numbers and booleans are written as JSON writes them.

    Raises:
        InvalidRequest: too much, or a value that is no text.
    """
    given = given or {}
    if len(given) > _MOST:
        raise InvalidRequest(f"{name} has more than {_MOST} entries")
    return {plain_text(key, name, _KEY_LENGTH): _text(value, name) for key, value in given.items()}


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return plain_text(str(value), name, _VALUE_LENGTH)
    raise InvalidRequest(f"{name} has a value that is no text")
