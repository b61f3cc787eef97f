"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agent_process import ROOT

from agent import peers, processes
from secrethub.errors import PermissionDenied

CONNECTING = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""


UNKNOWN = {"pidfd_option": 9999}
"""As on a kernel that has no such option."""


@pytest.mark.parametrize("kernel", [{}, UNKNOWN])
def test_a_process_is_described(place: Path, kernel: dict[str, int]) -> None:
    """Process, user, groups and program of whoever connected are known."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "s"))
        listening.listen()
        argv = [sys.executable, "-c", CONNECTING, str(place / "s")]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        accepted, _address = listening.accept()
        with accepted:
            peer = peers.identify(accepted, **kernel)
            assert (peer.pid, peer.uid) == (child.pid, os.geteuid())
            assert os.getegid() in peer.gids
            assert peer.executable == processes.executable(os.getpid())
            child.communicate()
            with pytest.raises(PermissionDenied):
                peers.identify(accepted, **kernel)


def test_a_number_that_was_used_again_is_not_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a pidfd from the kernel, a process that began after the connection is not believed."""
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: 0.0)  # accepted when the host had just booted
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other, pytest.raises(PermissionDenied, match="used again"):
        peers.identify(one, **UNKNOWN)


REFUSED = """
import codecs, os, socket, sys
sys.path.insert(0, sys.argv[2])
from agent import peers
codecs.lookup("ascii")  # loaded while the user may still read where Python is
os.setgroups([]), os.setgid(12345), os.setuid(12345)
listening = socket.socket(fileno=int(sys.argv[1]))
accepted, _address = listening.accept()
try:
    peers.identify(accepted)
except Exception as exc:
    print(exc)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs processes of other users")
def test_without_the_right_to_look_the_reason_is_that(place: Path) -> None:
    """An agent that may not examine a process of another user refuses it, and says which right it lacks."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as connecting:
        listening.bind(str(place / "s"))
        listening.listen()
        connecting.connect(str(place / "s"))
        argv = [sys.executable, "-c", REFUSED, str(listening.fileno()), str(ROOT)]
        done = subprocess.run(argv, pass_fds=[listening.fileno()], check=True, capture_output=True, text=True)
    assert "CAP_SYS_PTRACE" in done.stdout
