"""Children and wardens: nothing they started outlives the process they belong to."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.children.child import Child
from tests.conventions.project import ROOT

WARDEN = ROOT / "cluster" / "children" / "warden.py"
FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for generation in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
        with open(sys.argv[1], "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(600)
        os._exit(0)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""
MEMBERS = 7
PARENT = """
import signal, sys, time
from pathlib import Path
from cluster.children.child import Child
folder = Path(sys.argv[1])
child = Child(sys.argv[2:], environment={}, directory=folder, log=folder / "log", death_signal=signal.SIGHUP)
child.start()
print(child.pid, flush=True)
time.sleep(600)
"""


def family(folder: Path) -> list[int]:
    """Wait until the whole family has signed, and return its members."""
    file = folder / "members"
    file.touch()
    while True:
        members = [int(line) for line in file.read_text().split()]
        if len(members) >= MEMBERS:
            return members
        os.sched_yield()


def gone(pid: int) -> bool:
    """Wait up to a minute for the end of a process."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        return bool(poll.poll(60_000))
    finally:
        os.close(watch)


def warden(folder: Path) -> list[str]:
    """The command of a warden over the family."""
    return [
        *(sys.executable, "-I", "-S", str(WARDEN)),
        *(sys.executable, "-I", "-S", "-c", FAMILY, str(folder / "members")),
    ]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_warden_told_to_stop_ends_everybody(tmp_path: Path, number: signal.Signals) -> None:
    """Descendants that left their session, lost their parents and ignore SIGTERM end with the warden."""
    child = Child(warden(tmp_path), environment={}, directory=tmp_path, log=tmp_path / "log")
    child.start()
    members = family(tmp_path)
    child.send(number)
    assert await child.wait(60)
    assert not [pid for pid in members if Path(f"/proc/{pid}").exists()]


def test_a_killed_parent_takes_everybody_along(tmp_path: Path) -> None:
    """After SIGKILL of the process that started the warden, nobody of the family is left."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), *warden(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        keeper = int(parent.stdout.readline())
        members = family(tmp_path)
        parent.kill()
        parent.wait()
    assert all(gone(pid) for pid in (keeper, *members))


async def test_a_warden_s_exit_code_is_its_program_s(tmp_path: Path) -> None:
    """When the program ends by itself, so does the warden, with the same exit code."""
    program = [sys.executable, "-I", "-S", "-c", "raise SystemExit(7)"]
    child = Child(
        [sys.executable, "-I", "-S", str(WARDEN), *program],
        environment={},
        directory=tmp_path,
        log=tmp_path / "log",
    )
    child.start()
    assert await child.wait(60)
    assert child.exit_code == 7


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    """Stopping sends each signal in turn and ends with SIGKILL."""
    script = "import signal,sys; signal.pthread_sigmask(0, {15, 2}); print(1, flush=True); signal.pause()"
    child = Child(
        [sys.executable, "-I", "-S", "-c", script], environment={}, directory=tmp_path, log=tmp_path / "log"
    )
    child.start()
    while not (tmp_path / "log").read_text():
        assert child.running
    await child.stop((signal.SIGINT, 0.01), (signal.SIGTERM, 0.01))
    assert child.exit_code == -signal.SIGKILL


async def test_a_child_has_only_the_environment_it_is_given(tmp_path: Path) -> None:
    """Nothing of this process's environment reaches a child."""
    os.environ["SECRETHUB_TEST_CANARY"] = "canary"
    try:
        child = Child(
            [sys.executable, "-I", "-S", "-c", "import os; print(sorted(os.environ))"],
            environment={"ONLY": "this"},
            directory=tmp_path,
            log=tmp_path / "log",
        )
        child.start()
        assert await child.wait(60)
    finally:
        del os.environ["SECRETHUB_TEST_CANARY"]
    said = (tmp_path / "log").read_text()
    assert "ONLY" in said
    assert "CANARY" not in said


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A working directory that does not exist is told to whoever starts the child."""
    child = Child(["/bin/true"], environment={}, directory=tmp_path / "none", log=tmp_path / "log")
    with pytest.raises(FileNotFoundError):
        child.start()
