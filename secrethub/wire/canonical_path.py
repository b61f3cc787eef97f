"""The one canonical form of a request path; everything after the edge uses this value only.

A path is decoded exactly once. Dispatch, policy, engines, audit and quotas then see the same text,
so no second decoding can turn a harmless name into another one. What has no canonical form is
refused, never repaired: empty segments, ``.`` and ``..``, an encoded slash, control characters and
other characters that hide or reorder text, code points that are none, bad UTF-8, and text that is not
in Unicode NFC.

A canonical path has neither a leading nor a trailing slash. Whether the client sent a trailing
slash is ``raw_path.endswith(b"/")`` (an encoded slash never gets this far); nothing but listing
cares, and listing adds its own.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from secrethub.errors import InvalidPath

MAX_PATH_BYTES = 2048
"""Bytes of the whole path, decoded."""

MAX_SEGMENT_BYTES = 1024
"""Bytes of one segment, decoded."""

MAX_SEGMENTS = 256
"""Segments of a path; bounds what matching it against policies can cost."""

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(rb"%2[Ff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HIDDEN = re.compile(r"[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ENDS = "".join(chr(plane | end) for plane in range(0, 0x110000, 0x10000) for end in (0xFFFE, 0xFFFF))
_NO_CHARACTER = re.compile(f"[\ufdd0-\ufdef{_ENDS}]")
"""Code points that Unicode never gives to a character. Lists end at the last of them."""


@lru_cache(maxsize=2048)
def parse_path(raw_path: bytes) -> str:
    """Decode and check the path of a request as it stood on the wire.

    Args:
        raw_path: the path below the API prefix, still percent-encoded, without query string and
            without a leading slash, e.g. ``b"secret/data/prod/db"``.

    Returns:
        The canonical path, e.g. ``"secret/data/prod/db"``; one trailing slash is removed.

    Raises:
        InvalidPath: the path has no canonical form; the message says why, without repeating it.
    """
    if b"%" not in raw_path:
        return check_path(_decode(raw_path))
    if len(raw_path) > 3 * MAX_PATH_BYTES:
        raise InvalidPath(f"the path is longer than {MAX_PATH_BYTES} bytes")
    if _BAD_ESCAPE.search(raw_path):
        raise InvalidPath("the path has a percent sign that is not followed by two hexadecimal digits")
    if _ENCODED_SLASH.search(raw_path):
        raise InvalidPath("the path has an encoded slash (%2F)")
    return check_path(_decode(unquote_to_bytes(raw_path)))


def check_path(path: str) -> str:
    """Check a path that is text already (an agent's message, a command's argument).

    Args:
        path: the decoded path without a leading slash.

    Returns:
        The canonical path; one trailing slash is removed.

    Raises:
        InvalidPath: as :func:`parse_path`.
    """
    path = path.removesuffix("/")
    if not path:
        raise InvalidPath("the path is empty")
    ascii_only = path.isascii()
    _check_length(path, ascii_only)
    if _CONTROL.search(path):
        raise InvalidPath("the path has a control character")
    if not ascii_only:
        if _HIDDEN.search(path):
            raise InvalidPath("the path has a line separator or a bidirectional control character")
        if _NO_CHARACTER.search(path):
            raise InvalidPath("the path has a code point that is no character")
        if not unicodedata.is_normalized("NFC", path):
            raise InvalidPath("the path is not in Unicode normalisation form C (NFC)")
    return path


def _decode(octets: bytes) -> str:
    if len(octets) > MAX_PATH_BYTES + 1:  # a trailing slash may come on top
        raise InvalidPath(f"the path is longer than {MAX_PATH_BYTES} bytes")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidPath("the path is not valid UTF-8") from None


def _check_length(path: str, ascii_only: bool) -> None:
    """Check lengths and segments; lengths count UTF-8 bytes."""
    try:
        total = len(path) if ascii_only else len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidPath("the path is not valid Unicode") from None
    if total > MAX_PATH_BYTES:
        raise InvalidPath(f"the path is longer than {MAX_PATH_BYTES} bytes")
    segments = path.split("/")
    if len(segments) > MAX_SEGMENTS:
        raise InvalidPath(f"the path has more than {MAX_SEGMENTS} segments")
    for number, segment in enumerate(segments, start=1):
        if not segment:
            raise InvalidPath(f"segment {number} of the path is empty")
        if segment in {".", ".."}:
            raise InvalidPath(f"segment {number} of the path is '{segment}'")
        if total > MAX_SEGMENT_BYTES and len(segment.encode("utf-8")) > MAX_SEGMENT_BYTES:
            raise InvalidPath(f"segment {number} of the path is longer than {MAX_SEGMENT_BYTES} bytes")
