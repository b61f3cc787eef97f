"""The head of an HTTP/1.1 message (RFC 9112), read strictly; no IO here.

Both the agent's socket and its few calls to Core use it. What two readers could understand
differently is refused: bare line feeds, folded lines, a length given twice, length and chunks
together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from secrethub.errors import InvalidRequest, TooLarge

LONGEST_HEAD = 16 * 1024
"""Bytes of the start line and all header fields together."""
MOST_FIELDS = 64

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]{1,8192}) HTTP/1\.([01])")
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_LENGTH = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestHead:
    """What a request begins with. ``target`` is as it stood on the wire."""

    method: str
    target: bytes
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseHead:
    """What an answer begins with."""

    status: int
    headers: Mapping[str, str]


def parse_request(block: bytes) -> RequestHead:
    """Read the head of a request, up to and including the empty line.

    Raises:
        InvalidRequest: it is none.
        TooLarge: above the limits.
    """
    start, headers = _split(block)
    match = _REQUEST.fullmatch(start)
    if match is None:
        raise InvalidRequest("not an HTTP/1.1 request line")
    if match[3] == b"1" and "host" not in headers:
        raise InvalidRequest("the Host header is missing")
    wanted = headers.get("connection", "").lower()
    keep = "close" not in wanted if match[3] == b"1" else "keep-alive" in wanted
    return RequestHead(method=match[1].decode("ascii"), target=match[2], headers=headers, keep_alive=keep)


def parse_response(block: bytes) -> ResponseHead:
    """Read the head of an answer, up to and including the empty line.

    Raises:
        InvalidRequest: it is none.
        TooLarge: above the limits.
    """
    start, headers = _split(block)
    match = _RESPONSE.fullmatch(start)
    if match is None:
        raise InvalidRequest("not an HTTP/1.1 status line")
    return ResponseHead(status=int(match[2]), headers=headers)


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return the body's length, or None when the head does not say.

    Raises:
        InvalidRequest: the length is no number, or comes together with a transfer encoding.
    """
    text = headers.get("content-length")
    if text is None:
        return None
    if "transfer-encoding" in headers or _LENGTH.fullmatch(text) is None:
        raise InvalidRequest("the length of the body is not clear")
    return int(text)


def is_chunked(headers: Mapping[str, str]) -> bool:
    """Tell whether the body comes in chunks.

    Raises:
        InvalidRequest: another transfer encoding.
    """
    encoding = headers.get("transfer-encoding")
    if encoding is not None and encoding.lower() != "chunked":
        raise InvalidRequest("unknown transfer encoding")
    return encoding is not None


def chunk_size(line: bytes) -> int:
    """Read the line before a chunk; extensions are ignored.

    Raises:
        InvalidRequest: it is no size.
    """
    size = line.rstrip(b"\r\n").partition(b";")[0].strip()
    if re.fullmatch(rb"[0-9a-fA-F]{1,8}", size) is None:
        raise InvalidRequest("not a chunk")
    return int(size, 16)


def _split(block: bytes) -> tuple[bytes, dict[str, str]]:
    if len(block) > LONGEST_HEAD:
        raise TooLarge(f"the head has more than {LONGEST_HEAD} bytes")
    start, *lines = block.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if len(lines) > MOST_FIELDS:
        raise TooLarge(f"more than {MOST_FIELDS} header fields")
    headers: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        value = raw_value.strip(b" \t")
        if not colon or _NAME.fullmatch(raw_name) is None or _VALUE.fullmatch(value) is None:
            raise InvalidRequest("not a header field")
        name = raw_name.decode("ascii").lower()
        if name not in headers:
            headers[name] = value.decode("latin-1")
        elif name in {"content-length", "transfer-encoding", "host"}:
            raise InvalidRequest(f"{name} is given twice")
        else:
            headers[name] += ", " + value.decode("latin-1")
    return start, headers
