"""Identifiers and random names, in the formats that Vault's clients expect.

Tokens carry 160 bits and more; accessors and lease ids are separate random strings.
"""

from __future__ import annotations

import os
import re
import string

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in string.hexdigits}
"""The first digit of a UUID's fourth group, for a random digit."""
APPLICATION = r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z"
"""The pattern of an application's name."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDENTITY = re.compile(r"[A-Za-z0-9_.-]+")


def base62(length: int) -> str:
    """Return ``length`` random base62 characters (5.95 bits each)."""
    found = ""
    while len(found) < length:
        # A byte is one of four times all characters, or left out: each is as likely as any other.
        found += "".join(_BASE62[byte % 62] for byte in os.urandom(2 * length) if byte < 248)
    return found[:length]


def new_token() -> str:
    """Return a service token: ``hvs.`` and 28 base62 characters, 166 bits."""
    return "hvs." + base62(28)


def new_accessor() -> str:
    """Return an accessor: 24 base62 characters."""
    return base62(24)


def new_uuid() -> str:
    """Return a random UUID (RFC 9562 version 4) in its canonical text form."""
    return _uuid(os.urandom(16).hex())


def new_uuids(count: int) -> list[str]:
    """Return as many random UUIDs, for one call of the system."""
    text = os.urandom(16 * count).hex()
    return [_uuid(text[at : at + 32]) for at in range(0, 32 * count, 32)]


def _uuid(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


def is_uuid(text: str) -> bool:
    """Tell whether ``text`` is a UUID in canonical lower-case form."""
    return _UUID.fullmatch(text) is not None


def is_application(text: str) -> bool:
    """Tell whether ``text`` may be the name of an application."""
    return re.search(APPLICATION, text) is not None


def is_identity_value(text: str) -> bool:
    """Tell whether ``text`` may stand in a path template (``[A-Za-z0-9_.-]+``, no dot segment)."""
    return _IDENTITY.fullmatch(text) is not None and text not in {".", ".."}
