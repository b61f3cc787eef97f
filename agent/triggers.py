"""The ways to tell a program that its file changed: a signal, a command, an HTTP request.

A signal goes to one process that was looked at and is pinned by a pidfd: a pid file is believed only
if it belongs to root or to the file's owner, and only for a process of theirs that was there when it
was written. One that nobody but root can have put there may name any user's process. Commands run
without a shell and without the agent's variables; what they print is not read, for it might quote the
file.
"""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
import stat
import time
from pathlib import Path

from agent import children, files, http_client, processes
from agent.files import Found
from agent.http_client import Tls
from agent.settings import CommandReload, HttpReload, ReloadSettings, SignalReload
from secrethub.errors import Misconfigured, NotFound, SecretHubError, TooLarge, Unavailable

_SYSTEMCTL_TIMEOUT = 10.0
_PID = re.compile(r"[0-9]{1,9}")
_SLACK = 2.0
"""Seconds by which clocks of different grain may differ."""
_OTHERS_WRITE = 0o022
_ANSWER = 64
"""Bytes of a process id, with room to spare."""


class ReloadFailed(SecretHubError):
    """A program could not be told that its file changed."""

    code = "reload_failed"


async def fire(reload: ReloadSettings, owner: int) -> None:
    """Tell the program.

    Args:
        reload: how.
        owner: user id of the file's owner.

    Raises:
        ReloadFailed: says why; never with output of the program.
    """
    try:
        match reload:
            case SignalReload(pid_file=Path() as pid_file):
                await asyncio.to_thread(signal_pid_file, pid_file, reload.signal, owner)
            case SignalReload(unit=str() as unit):
                await _signal_unit(unit, reload.signal)
            case CommandReload():
                await _command(reload)
            case HttpReload():
                await _http(reload)
    except (Misconfigured, NotFound, TooLarge, Unavailable, OSError) as exc:
        raise ReloadFailed(str(exc)) from exc


def signal_pid_file(path: Path, number: int, owner: int) -> None:
    """Send a signal to the process of a pid file.

    Raises:
        NotFound: no pid file, or no such process.
        Misconfigured: the file or the process does not belong to whom it should.
        Unavailable: the process cannot be examined.
    """
    folder, name = files.split(path)
    with files.directory(folder) as at:
        found = files.read(at, name, limit=64)
    if found is None:
        raise NotFound(f"no pid file {path}")
    pid = _pid_in(path, found, owner)
    with processes.pinned(pid) as pidfd:
        allowed = {0, owner} if found.attributes.uid == 0 else {owner}
        users = processes.user_ids(pid)
        if not users <= allowed and not (found.attributes.uid == 0 and _only_roots(path, found)):
            raise Misconfigured(
                f"{path}: process {pid} runs as another user (uid {max(users - allowed)}); that is accepted "
                "only when root owns the pid file and its folders, and nobody else may write to them"
            )
        written = found.modified - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
        if processes.started_at(pid) > written + _SLACK:
            raise Misconfigured(f"{path}: process {pid} began after the file was written; the file is stale")
        _send(pidfd, pid, number)


def _pid_in(path: Path, found: Found, owner: int) -> int:
    if found.attributes.uid not in {0, owner}:
        raise Misconfigured(
            f"{path} belongs to uid {found.attributes.uid}, neither root nor the file's owner"
        )
    if found.attributes.mode & 0o002:
        raise Misconfigured(f"{path} can be written by everybody")
    if not found.alone:
        raise Misconfigured(f"{path} has another name (hard link), or is being replaced")
    text = found.content.decode("ascii", "replace").strip()
    if _PID.fullmatch(text) is None or int(text) <= 1:
        raise Misconfigured(f"{path} does not hold a process id")
    return int(text)


def _only_roots(path: Path, found: Found) -> bool:
    """Tell whether only root can have chosen what a pid file of root's says.

    Above its own folder a sticky folder will do: nobody but root moves what is root's there.
    """
    if found.attributes.mode & _OTHERS_WRITE:
        return False
    for folder in path.parents:
        status = folder.lstat()
        sticky = folder != path.parent and status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or (status.st_mode & _OTHERS_WRITE and not sticky):
            return False
    return True


def _send(pidfd: int, pid: int, number: int) -> None:
    if not processes.is_running(pidfd):
        raise NotFound(f"process {pid} has ended")
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError as exc:
        raise NotFound(f"process {pid} has ended") from exc


async def _signal_unit(unit: str, number: int) -> None:
    argv = ("systemctl", "show", "--property=MainPID", "--value", unit)
    text = await _run(argv, _SYSTEMCTL_TIMEOUT, read=True)
    pid = int(text) if _PID.fullmatch(text) else 0
    if pid <= 1:
        raise NotFound(f"{unit} has no main process")
    with processes.pinned(pid) as pidfd:
        if processes.unit(pid) != unit:
            raise Misconfigured(f"process {pid} does not belong to {unit}")
        _send(pidfd, pid, number)


async def _command(reload: CommandReload) -> None:
    await _run(reload.argv, reload.timeout, read=False)


async def _run(argv: tuple[str, ...], timeout: float, *, read: bool) -> str:
    """Run a command to its end and return what it printed, if that is to be read."""
    ended = await children.run(argv, timeout, out=_ANSWER if read else 0)
    if ended.code != 0:
        raise Unavailable(f"{argv[0]} ended with {ended.code}")
    return ended.out.decode("ascii", "replace").strip()


async def _http(reload: HttpReload) -> None:
    tls = Tls(context=ssl.create_default_context()) if reload.url.startswith("https://") else None
    answer = await http_client.request("POST", reload.url, tls=tls, body=b"", timeout=reload.timeout)
    if not 200 <= answer.status < 300:
        raise Unavailable(f"{reload.url} answered {answer.status}")
