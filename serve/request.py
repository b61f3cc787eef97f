"""What a request says besides its path: headers, query, credential and body, each read once.

Anything that two readers could take differently is refused rather than chosen from.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from secrethub.auth.tokens import MAX_TTL
from secrethub.errors import InvalidRequest, TooLarge, Unavailable
from secrethub.operations.call import Token
from secrethub.sensitive import Sensitive
from secrethub.wire.durations import parse_duration

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = Sequence[tuple[bytes, bytes]]

_MAX_QUERY = 64
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ONCE = frozenset(
    {
        b"authorization",
        b"content-length",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"x-vault-namespace",
        b"x-vault-token",
        b"x-vault-wrap-format",
        b"x-vault-wrap-ttl",
    }
)


def single_headers(given: Headers) -> dict[bytes, str]:
    """Return the headers by name.

    Raises:
        InvalidRequest: one that decides something is there twice, and who reads which is unknown.
    """
    headers = {name: value.decode("latin-1") for name, value in given}
    if len(headers) != len(given):
        names = [name for name, _ in given]
        for name in _ONCE:
            if names.count(name) > 1:
                raise InvalidRequest(f"the header {name.decode('ascii')} is given twice")
    return headers


def read_query(raw: bytes) -> dict[str, str]:
    """Return the parameters of a query string.

    Raises:
        InvalidRequest: not well-formed, with a control character, or with a name given twice.
    """
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_QUERY, errors="strict"
        )
    except ValueError as exc:
        raise InvalidRequest("the query string is not valid") from exc
    query = dict(pairs)
    if len(query) != len(pairs):
        raise InvalidRequest("the query string has a name twice")
    if any(_CONTROL.search(name) or _CONTROL.search(value) for name, value in query.items()):
        raise InvalidRequest("the query string has a control character")
    return query


def check_headers(headers: Mapping[bytes, str]) -> None:
    """Refuse what a header asks for and nobody here does.

    Raises:
        InvalidRequest: a namespace, or a form of wrapped answers that is not known.
    """
    if headers.get(b"x-vault-namespace", "").strip("/") not in {"", "root"}:
        raise InvalidRequest("there are no namespaces")
    if headers.get(b"x-vault-wrap-format", "").lower() not in {"", "uuid"}:
        raise InvalidRequest("wrapping tokens have one form: leave X-Vault-Wrap-Format out")


def wrap_ttl_of(headers: Mapping[bytes, str]) -> int:
    """Return for how many seconds the answer shall be wrapped, 0 when it shall not be.

    Raises:
        InvalidRequest: no duration, or more than a token may live. Ignoring it would disclose in clear
            what the caller asked to have wrapped.
    """
    text = headers.get(b"x-vault-wrap-ttl")
    if text is None:
        return 0
    try:
        seconds = parse_duration(text.strip())
    except InvalidRequest as exc:
        raise InvalidRequest(f"X-Vault-Wrap-TTL: {exc.message}") from exc
    if seconds > MAX_TTL:
        raise InvalidRequest(f"X-Vault-Wrap-TTL: a wrapped answer is kept for {MAX_TTL} seconds at most")
    return seconds


def credential_of(headers: Mapping[bytes, str]) -> Token | None:
    """Return the token of ``X-Vault-Token`` or ``Authorization: Bearer``, or None."""
    text = headers.get(b"x-vault-token", "").strip()
    if not text:
        scheme, _, rest = headers.get(b"authorization", "").partition(" ")
        text = rest.strip() if scheme.lower() == "bearer" else ""
    return Token(secret=Sensitive(text)) if text else None


def has_body(headers: Mapping[bytes, str]) -> bool:
    """Tell whether the request has a body: without either header it has none (RFC 9112, 6.3)."""
    return b"content-length" in headers or b"transfer-encoding" in headers


async def read_body(receive: Receive, headers: Mapping[bytes, str], limit: int, seconds: float) -> bytes:
    """Return the whole body.

    Args:
        receive: the ASGI channel.
        headers: of the request.
        limit: bytes it may have.
        seconds: in which it must arrive.

    Raises:
        TooLarge: it has more, or says so.
        InvalidRequest: it does not arrive in time.
        Unavailable: the client went away before its end; nothing is done with the part that came.
    """
    length = headers.get(b"content-length", "0")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limit):
        raise TooLarge(f"a request body has at most {limit} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Unavailable("the client went away")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"a request body has at most {limit} bytes")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as exc:
        raise InvalidRequest("the request body did not arrive in time") from exc
