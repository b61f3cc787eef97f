"""The local syslog daemon: one datagram an entry (RFC 3164, section 4.1, as daemons take it locally)."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Sequence

from secrethub.engines.sinks.target import TargetFailed, without_detail
from secrethub.errors import InvalidRequest
from secrethub.node import NodeSettings

FACILITIES = {
    "KERN": 0,
    "USER": 1,
    "MAIL": 2,
    "DAEMON": 3,
    "AUTH": 4,
    "SYSLOG": 5,
    "LPR": 6,
    "NEWS": 7,
    "UUCP": 8,
    "CRON": 9,
    "AUTHPRIV": 10,
    "FTP": 11,
    **{f"LOCAL{number}": 16 + number for number in range(8)},
}
_INFO = 6
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SECONDS = 5.0


class SyslogTarget:
    """The daemon behind the socket of the server's settings."""

    def __init__(self, settings: NodeSettings, facility: str, tag: str) -> None:
        """Prepare; nothing is opened yet.

        Raises:
            InvalidRequest: no such facility, or no possible tag.
        """
        if facility.upper() not in FACILITIES:
            raise InvalidRequest("facility is one of syslog's, such as AUTH or LOCAL0")
        if _TAG.fullmatch(tag) is None:
            raise InvalidRequest("tag has up to 32 letters, digits, dots and dashes")
        self._place = settings.syslog_socket
        self._head = f"<{FACILITIES[facility.upper()] * 8 + _INFO}>{tag}[{os.getpid()}]: ".encode()
        self._socket: socket.socket | None = None

    async def check(self) -> None:
        """Connect to the daemon."""
        await asyncio.to_thread(self._guarded, ())

    async def send(self, lines: Sequence[bytes]) -> None:
        """Send the lines; the daemon has them afterwards, what it does with them is its own affair."""
        await asyncio.to_thread(self._guarded, lines)

    async def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _guarded(self, lines: Sequence[bytes]) -> None:
        try:
            if self._socket is None:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                try:
                    made.settimeout(_SECONDS)
                    made.connect(self._place)
                except BaseException:
                    made.close()
                    raise
                self._socket = made
            for line in lines:
                self._send(self._socket, line)
        except OSError as exc:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            raise TargetFailed(f"{self._place}: {exc.strerror or exc}") from exc

    def _send(self, to: socket.socket, line: bytes) -> None:
        """Send an entry; of one that no datagram holds, all but its detail, or nothing would follow it."""
        try:
            to.send(self._head + line)
        except OSError as exc:
            if exc.errno != errno.EMSGSIZE:
                raise
            to.send(self._head + without_detail(line))
