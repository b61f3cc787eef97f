"""Becomes another program that ends when its parent ends; run as a script, never imported.

Called as ``launch.py PARENT SIGNAL UID GID PROGRAM ARGUMENT…``. In this order, and only this order
works: give up root (which would clear a death signal set before), leave the terminal's session (so
that Ctrl-C reaches the parent alone, which then stops its children in their order), ask the kernel
for the death signal, check that the parent has not died meanwhile, become the program.

The death signal is delivered when the *thread* that forked this process ends; ``child.py`` forks
from a thread that lives as long as the child.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the program named in ``arguments``."""
    parent, death_signal, uid, gid = (int(text) for text in arguments[:4])
    program = arguments[4:]
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit("the parent ended before its child began")
    os.umask(0o077)
    os.execv(program[0], program)  # noqa: S606 - becoming the program is the point; no shell


if __name__ == "__main__":
    main(sys.argv[1:])
