"""Keeps a whole tree of processes together; run as a script, never imported.

Called as ``warden.py PROGRAM ARGUMENT…``. Starts the program and becomes the parent of every process
below it that loses its own ("subreaper"), however it left its session. When the program ends, when
this process is told to stop, or when its own parent dies, it ends every one of them, and only then
itself. So a lock that it holds is free only when nothing is left.

``SIGTERM`` asks the program to end and gives it some seconds. ``SIGHUP``, the death signal that
``launch.py`` arranged, ends everything at once.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE = 8
"""Seconds that the program has to end by itself."""


def main(program: list[str]) -> int:
    """Run the program and return its exit code when nothing of it is left."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    # Blocked from here on and taken by sigwait, so that no signal falls between two steps.
    wanted = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    parent = os.getpid()

    def setup() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    # One thread only, so running Python between fork and exec is safe.
    child = subprocess.Popen(program, preexec_fn=setup)  # noqa: PLW1509, S603
    code = 1
    try:
        code = _watch(child.pid, wanted)
    finally:
        _end_all()
    return code


def _watch(pid: int, wanted: set[signal.Signals]) -> int:
    """Reap whatever ends until the program has ended or its time is up."""
    code = _reap(pid)
    while code is None:
        number = signal.sigwait(wanted)
        if number in (signal.SIGHUP, signal.SIGALRM):
            return 128 + number
        if number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, signal.SIGTERM)
            signal.alarm(GRACE)
        code = _reap(pid)
    return code


def _reap(pid: int) -> int | None:
    """Collect ended children; return the program's exit code once it is among them."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code


def _end_all() -> None:
    """Kill our children until there are none: each one's orphans become ours in turn."""
    while True:
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    own = os.getpid()
    found = []
    for process in os.scandir("/proc"):
        if not process.name.isdigit():
            continue
        try:
            with open(f"{process.path}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double the start-up
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == own:
            found.append(int(process.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
