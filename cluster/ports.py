"""Ports of one node, each with a lock file.

``SO_REUSEPORT`` lets any process of the same user join a port silently, a forgotten server of
yesterday as well as a second instance. So a port is claimed before it is used: an exclusive lock
says that no other SecretHub node on this machine has it, and a probe without ``SO_REUSEPORT`` that
nobody listens there.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from cluster.port_locks import PortLocks
from secrethub.errors import Conflict, Misconfigured

_ATTEMPTS = 50
_ANOTHER = "choose another, 0 picks a free one"


class Ports:
    """The ports this node has claimed; they stay claimed while a descriptor is open anywhere."""

    def __init__(self, *folders: Path) -> None:
        """Prepare; nothing is claimed yet.

        Args:
            folders: where the lock files may be, the first choice first; without any the usual places, which
                are the same for all instances of one user.
        """
        self._locks = PortLocks(folders)
        self._reserved: list[socket.socket] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The locks, for a process that shall hold them as long as it lives."""
        return self._locks.descriptors

    def claim(
        self, setting: str, host: str, port: int, *, shared: bool = False, or_another: bool = False
    ) -> int:
        """Claim ``port`` and return it; 0 chooses a free one.

        Args:
            setting: what sets it, for messages.
            host: address to listen on.
            port: what is wanted.
            shared: the listeners will use ``SO_REUSEPORT``; then the port is also reserved by a
                socket of ours, so that nobody else is given it meanwhile.
            or_another: choose a free one when somebody has ``port``.

        Raises:
            Conflict: somebody has the port.
            Misconfigured: the address is not one of this machine.
        """
        for _ in range(_ATTEMPTS):
            try:
                chosen = _probe(setting, host, port)
                if self._locks.take(chosen):
                    if shared:
                        self._reserved.append(_bound(host, chosen, socket.SO_REUSEPORT))
                    return chosen
                if port:
                    raise Conflict(
                        f"{setting}: another SecretHub node on this machine has port {port}; {_ANOTHER}"
                    )
            except Conflict:
                if not or_another:
                    raise
                port = 0
        raise Conflict(f"{setting}: no free port found")

    def close(self) -> None:
        """Give up this process's claims."""
        for reserved in self._reserved:
            reserved.close()
        self._reserved.clear()
        self._locks.release()


def _probe(setting: str, host: str, port: int) -> int:
    """Return the port if nobody listens there, as a listener that does not share would see it."""
    try:
        with _bound(host, port, socket.SO_REUSEADDR) as probe:
            return int(probe.getsockname()[1])
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise Conflict(f"{setting}: port {port} is in use; {_ANOTHER}") from exc
        raise Misconfigured(f"{setting}: cannot listen on {host}: {exc.strerror or exc}") from exc


def _bound(host: str, port: int, option: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made
