"""What the agent learns of other processes from ``/proc``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import processes
from secrethub.errors import NotFound, Unavailable


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/app.service", "app.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/app.service/made-by-itself/db.service", "app.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/db.service", "user@1000.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/system.slice", None),
        ("/", None),
        ("/docker/0123456789", None),
        ("/../../system.slice/app.service", None),
    ],
)
def test_a_unit_is_the_first_part_below_the_slices(cgroup: str, unit: str | None) -> None:
    """What a service or a user makes further down cannot pass for another unit."""
    assert processes.unit_of(cgroup) == unit


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        ("0::/system.slice/app.service", "app.service"),
        ("1:name=systemd:/system.slice/app.service\n0::/system.slice/app.service", "app.service"),
        ("1:name=systemd:/system.slice/app.service\n0::/", "app.service"),
        ("1:name=systemd:/system.slice/app.service\n0::/system.slice/db.service", None),
        ("4:memory:/system.slice/app.service\n0::/", None),
    ],
)
def test_hierarchies_must_agree(lines: str, unit: str | None) -> None:
    """Only systemd's hierarchies count, and where they contradict each other there is no unit."""
    assert processes.unit_in(lines) == unit


def test_the_own_process_is_known() -> None:
    """User, start, program and namespace of a process are read."""
    pid = os.getpid()
    assert processes.user_ids(pid) == frozenset(os.getresuid())
    assert 0 < processes.started_at(pid) <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert processes.executable(pid) == str(Path(sys.executable).resolve())
    assert processes.in_own_user_namespace(pid)


def test_a_process_that_ended_is_noticed() -> None:
    """A pidfd tells that its process has ended, and what is gone cannot be examined."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with processes.pinned(child.pid) as pidfd:
        assert processes.is_running(pidfd)
        child.communicate()
        assert not processes.is_running(pidfd)
    with pytest.raises(NotFound), processes.pinned(child.pid):
        pass
    with pytest.raises(Unavailable):
        processes.user_ids(child.pid)
    assert processes.executable(child.pid) is None
    with pytest.raises(Unavailable):
        processes.in_own_user_namespace(child.pid)
