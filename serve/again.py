"""Reads that say again what the one before said on a connection: only their path is looked at.

A client that keeps its connection sends the same headers with each request, its token among them, and only
the path changes. HTTP/2 has its tables for that (RFC 7541); here what was made of the headers is kept, with
the bytes that they were, and a request that has the same bytes there needs no parser.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from secrethub.crypto.digests import equal
from secrethub.operations.call import Call

if TYPE_CHECKING:
    from serve.protocol import Protocol

_MAX = 16_384
"""Bytes of a request that are looked at."""
_END = b"\r\n\r\n"
_PLAIN = re.compile(rb"GET (/(?!/)[A-Za-z0-9/._~%!$&'()*+,;=:@-]*) HTTP/1\.1(?=\r\n)")
"""The line of a read of a path (RFC 3986, 3.3) without a query."""


class Said:
    """The headers of a connection's last read. Hidden in ``repr``, for a token is among them."""

    __slots__ = ("_call", "_lines")

    def __init__(self) -> None:
        self._lines = b""
        self._call: Call | None = None

    def again(self, lines: bytes) -> Call | None:
        """Return the call that the same header lines made, or None when these are others.

        Behind a proxy a connection has requests of many, so they are compared in constant time.
        """
        return self._call if self._call is not None and equal(lines, self._lines) else None

    def keep(self, lines: bytes, call: Call) -> None:
        """Remember what a read without a body and without a query was understood as.

        Args:
            lines: its headers as they came, up to the empty line that ends them.
            call: of the request; its path and its request id are not used.
        """
        self._lines, self._call = lines, call

    def __repr__(self) -> str:
        return "Said(…)"


def plain_of(data: bytes) -> tuple[bytes, bytes] | None:
    """Return path and header lines of what is one read of a path, whole and alone; None for all else."""
    if len(data) > _MAX or not data.endswith(_END):
        return None
    line = _PLAIN.match(data)
    if line is None or data.find(_END, line.end()) != len(data) - len(_END):
        return None
    return line[1], data[line.end() :]


class Again:
    """A read whose headers were understood before. Hidden in ``repr``, for a token is among them."""

    __slots__ = ("_connection", "data", "keep_alive", "like", "path")

    def __init__(self, connection: Protocol, data: bytes, path: bytes, like: Call) -> None:
        """Prepare.

        Args:
            connection: which it came on.
            data: all of it.
            path: as it was sent.
            like: the call that the same headers made.
        """
        self._connection = connection
        self.data = data
        self.path = path
        self.like = like
        self.keep_alive = True

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Write a whole answer, as a :class:`~serve.cycle.Cycle` does."""
        self._connection.answered(self, status, head, body)

    def whole_way(self) -> None:
        """Have it parsed, and carried out as any other."""
        self._connection.parse(self)

    def __repr__(self) -> str:
        return "Again(…)"
