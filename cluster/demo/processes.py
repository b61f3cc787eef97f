"""Child processes that end when the demo ends, however it ends, and a count of what is left of them.

The demo makes itself the reaper of its descendants' orphans, so whatever a child leaves behind turns
up below the demo instead of vanishing among the machine's processes. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cluster.demo.steps import DemoFailed

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_UNIX_FIELDS = 8
_LIBC = ctypes.CDLL(None, use_errno=True)


def command(*arguments: str) -> list[str]:
    """Return the argv of the ``secrethub`` command, run by this very Python."""
    # A stranger's folder must not shadow our packages: the current one is not on the path.
    return [sys.executable, "-P", "-m", "cluster.cli.main", *arguments]


def adopt_orphans() -> None:
    """Let orphans of descendants become children of this process."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """A process with its log, in a session of its own so that Ctrl-C reaches only the demo.

    Args:
        name: for messages.
        argv: program and arguments; no secrets.
        log: where its output goes.
        environment: its whole environment.
        folder: its working directory.
        keep: let it live on when the demo ends.
        lock: descriptor of a lock that it holds as long as it lives.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        folder: Path,
        *,
        keep: bool,
        lock: int | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
                pass_fds=() if lock is None else (lock,),
                preexec_fn=None if keep else _end_with_parent,  # noqa: PLW1509 - the demo has one thread
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Fail when it has ended.

        Raises:
            DemoFailed: with the last lines of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise DemoFailed(f"{self.name} ended with exit code {code}", self.tail())

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, seconds: float = 30.0) -> None:
        """Ask it to end and wait; end it by force when it does not.

        Raises:
            DemoFailed: it had to be ended by force.
        """
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired as exc:
            self._process.kill()
            self._process.wait()
            raise DemoFailed(f"{self.name} did not end within {seconds:.0f} s", self.tail()) from exc


def until(
    wanted: Callable[[], bool], what: str, *children: Child, seconds: float = 30.0, pause: float = 0.01
) -> float:
    """Wait until something holds and return how many seconds that took.

    Args:
        wanted: asked again and again.
        what: for the message when it does not come.
        children: must live meanwhile.
        seconds: how long to wait at most.
        pause: between two looks.

    Raises:
        DemoFailed: it did not happen in time, or a child ended.
    """
    started = time.monotonic()
    while not wanted():
        for child in children:
            child.check()
        if time.monotonic() - started > seconds:
            raise DemoFailed(f"{what}: not within {seconds:.0f} s", "\n".join(c.tail() for c in children))
        time.sleep(pause)
    return time.monotonic() - started


def descendants(pid: int) -> dict[int, str]:
    """Return the living processes below ``pid``: process id → command line."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name, in parentheses, may itself hold spaces and parentheses.
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: _command_line(child) for child in sorted(found - {pid})}


def open_files(pids: Iterable[int]) -> set[Path]:
    """Return the files that processes have open for writing, and the sockets they are bound to, by path."""
    bound = {}
    for line in Path("/proc/self/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == _UNIX_FIELDS and fields[7].startswith("/"):
            bound[f"socket:[{fields[6]}]"] = fields[7]
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in list(Path(f"/proc/{pid}/fd").iterdir()):
                with contextlib.suppress(OSError):
                    target = str(link.readlink())
                    target = bound.get(target, target if _writes(pid, link.name) else "")
                    if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
                        found.add(Path(target))
    return found


def _writes(pid: int, descriptor: str) -> bool:
    lines = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().splitlines()
    flags = next((line.split()[1] for line in lines if line.startswith("flags:")), "0")
    return bool(int(flags, 8) & (os.O_WRONLY | os.O_RDWR))


def end_rest(seconds: float = 10.0) -> list[str]:
    """Wait for the last descendants to end by themselves; end the others and return what they were."""
    try:
        until(
            lambda: _reaped() or not descendants(os.getpid()),
            "the last processes",
            seconds=seconds,
            pause=0.05,
        )
    except DemoFailed:
        left = descendants(os.getpid())
        for pid in left:
            _kill(pid)
        until(lambda: _reaped() or not descendants(os.getpid()), "killed processes", seconds=seconds)
        return [line or f"process {pid}" for pid, line in left.items()]
    return []


def _reaped() -> bool:
    """Collect what has ended; always False, so that it can stand before a condition."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _end_with_parent() -> None:
    """Runs in the child before its program: SIGTERM when the demo is gone without a word."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
