"""How fields of connections and roles are written. Pure."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re

import msgspec

from secrethub.errors import InvalidRequest

_LONGEST = 65_536
_MOST = 100
_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,128}")


def listed(given: str | list[str]) -> tuple[str, ...]:
    """Return statements, which Vault's clients write as a list, as one text, or as either in JSON or base64.

    Raises:
        InvalidRequest: too many or too long.
    """
    texts = _from_text(given) if isinstance(given, str) else given
    found = tuple(text for text in texts if text.strip())
    if len(found) > _MOST or sum(map(len, found)) > _LONGEST:
        raise InvalidRequest(f"statements are at most {_MOST}, of {_LONGEST} characters in all")
    return found


def role_patterns(given: list[str]) -> tuple[str, ...]:
    """Return names of roles in which ``*`` stands for any characters.

    Raises:
        InvalidRequest: there can be no such role.
    """
    for pattern in given:
        if _PATTERN.fullmatch(pattern) is None:
            raise InvalidRequest("allowed_roles are names of roles, with * for any characters")
    return tuple(given)


def _from_text(text: str) -> list[str]:
    # SQL has a space, which base64 has not.
    with contextlib.suppress(binascii.Error, ValueError):
        text = base64.b64decode(text, validate=True).decode()
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.MsgspecError:
            raise InvalidRequest("statements in JSON are a list of texts") from None
    return [text]
