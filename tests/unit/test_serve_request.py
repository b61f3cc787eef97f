"""Headers, query, credential and body of a request, each read once and in one way."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secrethub.errors import InvalidRequest, TooLarge, Unavailable
from serve.request import (
    check_headers,
    credential_of,
    has_body,
    read_body,
    read_query,
    single_headers,
    wrap_ttl_of,
)


def test_headers_by_name() -> None:
    """Harmless headers may be repeated, the last one counts; those that decide may not."""
    assert single_headers([(b"accept", b"a"), (b"accept", b"b"), (b"host", b"h\xff")]) == {
        b"accept": "b",
        b"host": "h\xff",
    }
    for name in (b"host", b"origin", b"authorization", b"x-vault-token", b"content-length"):
        with pytest.raises(InvalidRequest, match=name.decode()):
            single_headers([(name, b"same"), (b"accept", b"a"), (name, b"same")])


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cc", "Cs"])), st.text(), max_size=8))
def test_queries_come_back(query: dict[str, str]) -> None:
    """What is encoded properly is read as it was, or refused for a control character."""
    encoded = urlencode(query, errors="surrogatepass").encode()
    try:
        assert read_query(encoded) == query
    except InvalidRequest:
        assert any(
            ord(c) < 0x20 or ord(c) == 0x7F or 0xD800 <= ord(c) < 0xE000 for c in "".join(query.values())
        )


def test_a_query_has_its_bounds() -> None:
    """64 parameters are read; one more, or a name twice even with the same value, is refused."""
    names = [f"n{number}" for number in range(65)]
    assert len(read_query("&".join(f"{name}=" for name in names[:64]).encode())) == 64
    for raw in ("&".join(f"{name}=" for name in names), "version=1&version=1", "version=1&versio%6e=2"):
        with pytest.raises(InvalidRequest):
            read_query(raw.encode())


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(raw: bytes) -> None:
    """No bytes make a query anything but parameters or a refusal."""
    try:
        query = read_query(raw)
    except InvalidRequest:
        return
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in query.items())


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({b"x-vault-token": "a"}, "a"),
        ({b"authorization": "Bearer b"}, "b"),
        ({b"authorization": "BEARER  b "}, "b"),
        ({b"x-vault-token": "a", b"authorization": "Bearer b"}, "a"),
        ({b"x-vault-token": "a \t"}, "a"),
        ({b"x-vault-token": " ", b"authorization": "Bearer b"}, "b"),
        ({b"x-vault-token": "", b"authorization": "Bearer b"}, "b"),
        ({b"authorization": "Basic b"}, None),
        ({b"authorization": "b"}, None),
        ({b"authorization": "Bearer "}, None),
        ({}, None),
    ],
)
def test_credentials(headers: dict[bytes, str], token: str | None) -> None:
    """A token comes in one of two headers; neither shows it in its repr."""
    found = credential_of(headers)
    assert (None if found is None else found.secret.reveal()) == token
    assert token is None or f"'{token}'" not in repr(found)


def test_what_nobody_does_is_refused() -> None:
    """Namespaces and signed wrapping tokens are refused, their neutral values are not."""
    for headers in (
        {},
        {b"x-vault-namespace": "root/"},
        {b"x-vault-namespace": ""},
        {b"x-vault-wrap-format": "uuid"},
    ):
        check_headers(headers)
    for headers in ({b"x-vault-namespace": "team"}, {b"x-vault-wrap-format": "jwt"}):
        with pytest.raises(InvalidRequest):
            check_headers(headers)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("0", 0), ("0s", 0), (" 60 ", 60), ("5m", 300), ("768h", 2764800)]
)
def test_how_long_an_answer_is_wrapped(text: str, seconds: int) -> None:
    """The header is a duration; without it nothing is wrapped."""
    assert wrap_ttl_of({b"x-vault-wrap-ttl": text}) == seconds
    assert wrap_ttl_of({}) == 0


@pytest.mark.parametrize("text", ["-1", "x", "769h", "1.5", "true", "60,60", "500ms"])
def test_times_that_cannot_be(text: str) -> None:
    """What is no duration, or longer than a token may live, is refused: nothing comes in clear then."""
    with pytest.raises(InvalidRequest, match="X-Vault-Wrap-TTL"):
        wrap_ttl_of({b"x-vault-wrap-ttl": text})


async def body(*chunks: bytes, length: str | None = None, ends: bool = True, limit: int = 10) -> bytes:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": not ends or number + 1 < len(chunks)}
        for number, chunk in enumerate(chunks)
    ]
    messages.append({"type": "http.disconnect"})

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    headers = {b"transfer-encoding": "chunked"} if length is None else {b"content-length": length}
    return await read_body(receive, headers, limit, 30.0)


async def test_bodies() -> None:
    """A body is whole, within its limit, or an error."""
    assert await body(b"a", b"", b"bc") == b"abc"
    assert await body(b"0123456789") == b"0123456789"
    assert await body(b"ab", length="2") == b"ab"
    for chunks, length in (
        ((b"01234567890",), None),
        ((b"0" * 6, b"1" * 5), None),
        ((b"",), "11"),
        ((b"",), "9" * 5000),
    ):
        with pytest.raises(TooLarge):
            await body(*chunks, length=length)
    with pytest.raises(Unavailable):
        await body(b"ab", ends=False)
    for odd in ("²", "-1", "x"):
        assert await body(b"ab", length=odd) == b"ab"


def test_no_body() -> None:
    """Without a length and without chunks there is no body, and nobody waits for one."""
    assert not has_body({b"host": "localhost"})
    assert has_body({b"content-length": "0"})
    assert has_body({b"transfer-encoding": "chunked"})
