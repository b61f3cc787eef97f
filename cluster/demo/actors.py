"""Finding and killing an actor's process, as an accident would."""

from __future__ import annotations

import os
import re
import signal

from cluster.demo.processes import descendants
from cluster.demo.steps import DemoFailed

_SEAL_STATE = re.compile(r"ray::\S*SealState")


def seal_state_pid() -> int | None:
    """Return the process id of the SealState actor below this process, or None while there is none."""
    found = [pid for pid, line in descendants(os.getpid()).items() if _SEAL_STATE.match(line)]
    return found[0] if found else None


def kill_seal_state() -> int:
    """Kill the SealState actor's process with SIGKILL and return what its id was.

    Raises:
        DemoFailed: there is none.
    """
    pid = seal_state_pid()
    if pid is None:
        raise DemoFailed("no process of the SealState actor is running")
    os.kill(pid, signal.SIGKILL)
    return pid
