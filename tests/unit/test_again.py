"""What a connection's headers said is used for the same bytes alone; a plain read is one for a parser."""

from __future__ import annotations

import httptools
from hypothesis import example, given
from hypothesis import strategies as st

from secrethub.operations.call import Call, Token
from secrethub.sensitive import Sensitive
from serve.again import Said, plain_of

_CALL = Call(
    method="read",
    path="",
    credential=Token(secret=Sensitive("hvs.canary")),
    client_address=None,
    door="http",
    request_id="",
)
_HOST = b"\r\nHost: localhost"
_PIECES = st.lists(
    st.sampled_from(
        [
            *(b"GET ", b"LIST ", b"/v1/a", b"/", b"//b", b"?q=1", b"#f", b"%2f", b" HTTP/1.1", b" HTTP/1.0"),
            *(
                _HOST,
                b"\r\nX-Vault-Token: t",
                b"\r\nContent-Length: 3",
                b"\r\n\r\n",
                b"\n",
                b"\r",
                b" ",
                b"x",
            ),
            b"\r\nConnection: close",
        ]
    ),
    max_size=9,
).map(b"".join)


class _Seen:
    """What a parser makes of bytes."""

    def __init__(self) -> None:
        self.requests = 0
        self.url = b""
        self.ended = False

    def on_message_begin(self) -> None:
        self.requests += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_headers_complete(self) -> None:
        self.ended = True


@given(kept=st.binary(max_size=6), given_then=st.binary(max_size=6))
def test_only_the_same_lines_say_the_same(kept: bytes, given_then: bytes) -> None:
    """The call comes back for these header lines, whatever others look like, and for no others."""
    said = Said()
    assert said.again(kept) is None
    said.keep(kept, _CALL)
    assert said.again(kept) is _CALL
    assert said.again(given_then) is (_CALL if given_then == kept else None)


@given(data=_PIECES | _PIECES.map(lambda rest: b"GET /v1/a HTTP/1.1" + _HOST + rest + b"\r\n\r\n"))
@example(b"GET /v1/a HTTP/1.1" + _HOST + b"\r\nA: b\r\n\r\n")
def test_what_is_plain_is_one_read_for_a_parser(data: bytes) -> None:
    """Nothing is taken for one read of a path that a parser takes for something else."""
    plain = plain_of(data)
    if plain is None:
        return
    path, lines = plain
    assert data == b"GET " + path + b" HTTP/1.1" + lines
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        return  # such lines never become known
    assert (seen.requests, seen.url, seen.ended) == (1, path, True)
    assert parser.get_method() == b"GET"
    assert httptools.parse_url(path).path == path
    assert httptools.parse_url(path).query is None


def test_what_is_plain() -> None:
    """A whole read of a path, alone, and nothing else."""
    lines = _HOST + b"\r\n\r\n"
    assert plain_of(b"GET /v1/a%20b HTTP/1.1" + lines) == (b"/v1/a%20b", lines)
    others = [
        b"GET /v1/a HTTP/1.0" + lines,
        b"HEAD /v1/a HTTP/1.1" + lines,
        b"GET /v1/a?version=1 HTTP/1.1" + lines,
        b"GET /v1/a#b HTTP/1.1" + lines,
        b"GET //host/v1/a HTTP/1.1" + lines,
        b"GET http://localhost/v1/a HTTP/1.1" + lines,
        b"GET /v1/\xc3\xa4 HTTP/1.1" + lines,
        b"\r\nGET /v1/a HTTP/1.1" + lines,
        b"GET /v1/a HTTP/1.1" + lines + b"x",
        b"GET /v1/a HTTP/1.1" + lines + b"GET /v1/b HTTP/1.1" + lines,
        b"GET /v1/" + b"a" * 16_384 + b" HTTP/1.1" + lines,
        b"GET /v1/a HTTP/1.1" + _HOST,
        b"",
    ]
    assert [plain_of(other) for other in others] == [None] * len(others)


def test_they_hide_themselves() -> None:
    """A token is among them and is not shown."""
    said = Said()
    said.keep(b"X-Vault-Token: hvs.canary", _CALL)
    assert "canary" not in repr(said) + repr(_CALL) + repr(_CALL.credential)
