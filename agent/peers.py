"""Who is at the other end of a Unix socket, as the kernel knows it.

User and groups are those of the moment of ``connect``. Unit and program are read from ``/proc`` while
a pidfd of that very process is held (``SO_PEERPIDFD``, Linux 6.5); on older kernels a process that
began after the connection was accepted is not believed to be the peer. A peer in another user
namespace, or with an id that has no name here, is nobody.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from agent import processes
from agent.grants import Peer
from secrethub.errors import NotFound, PermissionDenied, Unavailable

_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("iII")
_MOST_GROUPS = 256
"""What :func:`socket.getsockopt` has room for; whoever is in more is identified by the first group."""
_TICK = 0.02
"""Seconds: a process's start is known to a hundredth only."""


def identify(connection: socket.socket, *, pidfd_option: int = _SO_PEERPIDFD) -> Peer:
    """Return who connected. Call it right after accepting.

    Args:
        connection: the accepted one.
        pidfd_option: the socket option for a pidfd of the peer; kernels before 6.5 do not know it.

    Raises:
        PermissionDenied: it cannot be known.
    """
    accepted_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    if pid <= 0:
        raise PermissionDenied("the peer is in another process namespace")
    if uid in _overflow("uid"):
        raise PermissionDenied("the peer's user has no name here")
    groups = frozenset({gid, *_groups(connection)}) - _overflow("gid")
    try:
        with _pidfd(connection, pid, pidfd_option) as (pidfd, exact):
            if not processes.in_own_user_namespace(pid):
                raise PermissionDenied("the peer is in another user namespace")
            unit, executable = processes.unit(pid), processes.executable(pid)
            if not exact and processes.started_at(pid) > accepted_at + _TICK:
                raise PermissionDenied("the peer has ended and its number was used again")
            if not processes.is_running(pidfd):
                raise PermissionDenied("the peer has ended")
    except (NotFound, Unavailable) as exc:
        raise PermissionDenied(f"the peer cannot be examined: {exc}") from exc
    return Peer(pid=pid, uid=uid, gids=groups, unit=unit, executable=executable)


@contextlib.contextmanager
def _pidfd(connection: socket.socket, pid: int, option: int) -> Iterator[tuple[int, bool]]:
    """Hold a pidfd of the peer; tell whether the kernel says it is the very process."""
    try:
        descriptor = connection.getsockopt(socket.SOL_SOCKET, option)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise PermissionDenied("the peer has ended") from exc
        with processes.pinned(pid) as pidfd:
            yield pidfd, False
        return
    try:
        yield descriptor, True
    finally:
        os.close(descriptor)


def _groups(connection: socket.socket) -> tuple[int, ...]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


def _overflow(kind: str) -> set[int]:
    try:
        return {int(Path(f"/proc/sys/kernel/overflow{kind}").read_text("ascii")), 65_534}
    except (OSError, ValueError) as exc:
        raise PermissionDenied("the kernel's overflow ids are not known") from exc
