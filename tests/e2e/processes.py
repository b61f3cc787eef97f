"""Processes as an accident meets them: found by what they are, stopped or killed without a word."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.demo.processes import descendants


def until(wanted: Callable[[], bool], what: str, *, seconds: float = 60.0, pause: float = 0.05) -> float:
    """Wait until something holds and return how many seconds that took; fail when it does not come."""
    began = time.monotonic()
    while not wanted():
        passed = time.monotonic() - began
        assert passed < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(pause)
    return time.monotonic() - began


def found(below: int, pattern: str) -> set[int]:
    """Return the processes below ``below`` whose command line begins with ``pattern``."""
    expression = re.compile(pattern)
    return {pid for pid, line in descendants(below).items() if expression.match(line)}


def the(below: int, pattern: str, *, seconds: float = 60.0) -> int:
    """Return the one process whose command line begins with ``pattern``; wait until there is one."""
    until(lambda: len(found(below, pattern)) == 1, f"one process {pattern}", seconds=seconds)
    return found(below, pattern).pop()


def killed(pid: int) -> int:
    """Kill a process with SIGKILL and return its id when it is gone."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), f"the end of process {pid}")
    return pid


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Let processes stand still (SIGSTOP) for as long as the block lasts."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: all(_state(pid) == "T" for pid in pids), "the processes stand still", pause=0.002)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def kill_all(root: int) -> int:
    """Kill a process and everything below it with SIGKILL, as a power cut would; return how many."""
    # What stands still starts nothing, so after two equal looks nobody is missed.
    known: set[int] = set()
    while known != (now := {root, *descendants(root)} if alive(root) else known):
        for pid in now - known:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        known |= now
    for pid in known:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, known)), "the end of the killed processes")
    return len(known)


def alive(pid: int) -> bool:
    """Tell whether a process runs, or stands still."""
    return _state(pid) not in {"", "Z", "X"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
