"""What ``/proc`` says about another process. Everything is read while a pidfd pins the process.

What cannot be read is an error or None, never a guess.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

from secrethub.errors import NotFound, Unavailable

_TICKS = os.sysconf("SC_CLK_TCK")
_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")


@contextlib.contextmanager
def pinned(pid: int) -> Iterator[int]:
    """Open a pidfd, which stands for this one process even after its number is used again.

    Raises:
        NotFound: no such process.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as exc:
        raise NotFound(f"no process {pid}") from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_running(pidfd: int) -> bool:
    """Tell whether the process of a pidfd has not ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def user_ids(pid: int) -> frozenset[int]:
    """Return real, effective and saved user id.

    Raises:
        Unavailable: unreadable.
    """
    for line in _read(pid, "status").splitlines():
        if line.startswith("Uid:"):
            return frozenset(int(number) for number in line.split()[1:4])
    raise Unavailable(f"process {pid} has no user ids")


def started_at(pid: int) -> float:
    """Return when a process began, in seconds of the boot clock.

    Raises:
        Unavailable: unreadable.
    """
    # The name in parentheses may hold anything, so fields are counted from its end.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[19]) / _TICKS


def unit(pid: int) -> str | None:
    """Return the systemd unit of a process, from its control group; None when it is in none.

    Raises:
        Unavailable: unreadable.
    """
    return unit_in(_read(pid, "cgroup"))


def unit_in(cgroups: str) -> str | None:
    """Return the unit that the text of a process's ``cgroup`` file names; None if not exactly one."""
    units = set()
    for line in cgroups.splitlines():
        number, controllers, path = line.split(":", 2)
        # systemd's own hierarchy, and the unified one, which hybrid hosts have beside it.
        if path != "/" and (controllers == "name=systemd" or number == "0"):
            units.add(unit_of(path))
    return units.pop() if len(units) == 1 else None


def unit_of(cgroup: str) -> str | None:
    """Return the unit that a control group path belongs to.

    It is the first component below the slices: what a service makes further down, it may name as it
    likes.
    """
    for part in cgroup.split("/"):
        if part and not part.endswith(".slice"):
            return part if part.endswith(_UNIT_SUFFIXES) else None
    return None


def executable(pid: int) -> str | None:
    """Return the program that a process runs; None when it cannot be known."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return None


def in_own_user_namespace(pid: int) -> bool:
    """Tell whether a process's user ids mean the same as ours.

    Raises:
        Unavailable: it cannot be known; for processes of other users that takes CAP_SYS_PTRACE.
    """
    try:
        return Path(f"/proc/{pid}/ns/user").stat().st_ino == Path("/proc/self/ns/user").stat().st_ino
    except PermissionError as exc:
        raise Unavailable(
            f"process {pid} is another user's, and this one lacks the capability CAP_SYS_PTRACE"
        ) from exc
    except OSError as exc:
        raise Unavailable(f"process {pid} cannot be examined") from exc


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text("utf-8", "surrogateescape")
    except OSError as exc:
        raise Unavailable(f"process {pid} cannot be examined") from exc
