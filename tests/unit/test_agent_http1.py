"""Heads of HTTP messages: what two readers could understand differently is refused."""

from __future__ import annotations

import pytest

from agent import http1
from secrethub.errors import InvalidRequest, TooLarge


def block(*lines: str) -> bytes:
    """Return a head of these lines."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def test_a_request_is_read() -> None:
    """Method, target and fields come out; names of fields are in lower case."""
    head = http1.parse_request(block("GET /v1/secrets/a?version=2 HTTP/1.1", "Host: x", "X-A: 1", "x-a:2"))
    assert (head.method, head.target, head.keep_alive) == ("GET", b"/v1/secrets/a?version=2", True)
    assert head.headers == {"host": "x", "x-a": "1, 2"}


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", True)],
)
def test_connections_are_kept_as_the_version_says(version: str, connection: str, kept: bool) -> None:
    """HTTP/1.1 keeps unless told otherwise, HTTP/1.0 closes unless told otherwise."""
    fields = [f"Connection: {connection}"] if connection else []
    assert http1.parse_request(block(f"GET / HTTP/{version}", "Host: x", *fields)).keep_alive is kept


@pytest.mark.parametrize(
    "lines",
    [
        ("GET /  HTTP/1.1", "Host: x"),
        ("GET / HTTP/2.0", "Host: x"),
        ("get / HTTP/1.1", "Host: x"),
        ("GET /a b HTTP/1.1", "Host: x"),
        ("GET /\xe9 HTTP/1.1", "Host: x"),
        ("GET / HTTP/1.1",),
        ("GET / HTTP/1.1", "Host : x"),
        ("GET / HTTP/1.1", "Host: x", " folded"),
        ("GET / HTTP/1.1", "Host: x", "no colon"),
        ("GET / HTTP/1.1", "Host: x\ny: z"),
        ("GET / HTTP/1.1", "Host: x\x00"),
        ("GET / HTTP/1.1", "Host: x", "Host: y"),
        ("GET / HTTP/1.1", "Host: x", "Content-Length: 1", "Content-Length: 1"),
        ("", "GET / HTTP/1.1", "Host: x"),
    ],
)
def test_what_is_no_clear_request_is_refused(lines: tuple[str, ...]) -> None:
    """Odd spacing, folding, bare line feeds, control characters and doubled fields are refused."""
    with pytest.raises(InvalidRequest):
        http1.parse_request(block(*lines))


def test_heads_are_bounded() -> None:
    """Neither a long head nor many fields are read."""
    with pytest.raises(TooLarge):
        http1.parse_request(block("GET / HTTP/1.1", "Host: " + "x" * http1.LONGEST_HEAD))
    with pytest.raises(TooLarge):
        http1.parse_request(block("GET / HTTP/1.1", *(f"X-{n}: 1" for n in range(http1.MOST_FIELDS + 1))))


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "-1"},
        {"content-length": "1x"},
        {"content-length": "+1"},
        {"content-length": ""},
        {"content-length": "5", "transfer-encoding": "chunked"},
    ],
)
def test_an_unclear_length_is_refused(headers: dict[str, str]) -> None:
    """A length must be plain digits and the only word about the body."""
    with pytest.raises(InvalidRequest):
        http1.content_length(headers)


def test_only_chunks_are_known() -> None:
    """Another transfer encoding is refused; none and chunked are told apart."""
    assert http1.is_chunked({"transfer-encoding": "Chunked"})
    assert not http1.is_chunked({})
    with pytest.raises(InvalidRequest):
        http1.is_chunked({"transfer-encoding": "gzip, chunked"})


def test_chunk_sizes_are_hexadecimal() -> None:
    """A size with an extension is read; what is no size is refused."""
    assert http1.chunk_size(b"1A;name=value\r\n") == 26
    for line in (b"\r\n", b"-1\r\n", b"1g\r\n", b"123456789\r\n"):
        with pytest.raises(InvalidRequest):
            http1.chunk_size(line)


def test_an_answer_is_read() -> None:
    """Status and fields come out, with or without a reason."""
    assert http1.parse_response(block("HTTP/1.1 404 Not Found", "A: b")).status == 404
    assert http1.parse_response(block("HTTP/1.1 204")).headers == {}
    with pytest.raises(InvalidRequest):
        http1.parse_response(block("HTTP/1.1 20 OK"))
