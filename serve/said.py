"""What the headers of a connection's requests say, understood once for as long as they stay the same.

A client that keeps its connection sends the same headers with each request, its token among them, and only
the path changes. HTTP/2 has its tables for that (RFC 7541); here what was made of the headers is kept.
"""

from __future__ import annotations

from secrethub.crypto.digests import equal
from secrethub.operations.call import Call
from serve.request import Headers


class Said:
    """The headers of a connection's last read at hand. Hidden in ``repr``, for a token is among them."""

    __slots__ = ("_call", "_text")

    def __init__(self) -> None:
        self._text = b""
        self._call: Call | None = None

    def again(self, headers: Headers) -> Call | None:
        """Return the call that the same headers made, or None when these are others.

        Behind a proxy a connection has requests of many, so they are compared in constant time.
        """
        return self._call if self._call is not None and equal(_text(headers), self._text) else None

    def keep(self, headers: Headers, call: Call) -> None:
        """Remember what a read without a body and without a query was understood as.

        Args:
            headers: all of the request's, in their order.
            call: of the request; its path and its request id are not used.
        """
        self._text, self._call = _text(headers), call

    def __repr__(self) -> str:
        return "Said(…)"


def _text(headers: Headers) -> bytes:
    """Return the headers as one text; no name and no value has a line break."""
    return b"\n".join([part for pair in headers for part in pair])
