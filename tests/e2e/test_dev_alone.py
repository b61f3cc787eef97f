"""``secrethub dev`` in one process: what it leaves, what it keeps, what it refuses."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.demo.core import Core, environment
from cluster.demo.processes import command
from tests.e2e.development import ends
from tests.e2e.shell import Shell
from tests.folders import traversable

pytestmark = pytest.mark.timeout(400)

PORTS = [word for name in ("--port", "--tls-port", "--agent-port", "--metrics-port") for word in (name, "0")]


class Starts:
    """Starts ``secrethub dev`` on the same data each time."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._started: list[Core] = []

    def __call__(self, *options: str) -> Core:
        shutil.rmtree(self._place / "tmp", ignore_errors=True)
        # A killed dev could not take it away, and it would be taken for the new one's.
        (self._place / "core" / "dev.json").unlink(missing_ok=True)
        core = Core(self._place, *options)
        self._started.append(core)
        core.wait()
        return core

    def end(self) -> None:
        """End what still runs."""
        for core in self._started:
            core.child.stop(60.0)


@pytest.fixture
def place() -> Iterator[Path]:
    """A test's own folder."""
    with traversable() as made:
        yield made


@pytest.fixture
def start(place: Path) -> Iterator[Starts]:
    """Starts it for one test."""
    starts = Starts(place)
    yield starts
    starts.end()


def test_a_single_process_keeps_data_and_nothing_else(start: Starts) -> None:
    """After SIGKILL no process is left and a new start has the data; after SIGTERM nothing is left either."""
    ends(start("--single-process"), lambda: start("--single-process"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_without_a_folder_nothing_is_kept(place: Path, number: signal.Signals) -> None:
    """Without ``--data-dir`` the data's temporary folder, however deep, is gone when dev has ended."""
    deep = place / ("d" * 100)
    deep.mkdir()
    with subprocess.Popen(
        command("dev", "--single-process", *PORTS),
        env={**environment(), "TMPDIR": str(deep)},
        stdout=subprocess.PIPE,
        text=True,
    ) as dev:
        assert dev.stdout is not None
        assert "ready" in dev.stdout.readline()
        (file,) = deep.glob("secrethub-dev-*/dev.json")
        run = (file.parent / "state" / "run-dir").readlink()
        sockets = (file.parent / "postgres" / "socket").readlink()
        assert run.exists()
        dev.send_signal(number)
        assert dev.wait(60) == 0
    assert not list(deep.iterdir())
    assert not run.exists()
    assert not sockets.exists()


def test_a_second_dev_leaves_the_first_alone(start: Starts) -> None:
    """Another dev on the same folder is refused, and the first one's ``dev.json`` stays."""
    core = start("--single-process")
    before = core.addresses()
    done = subprocess.run(
        command("dev", "--single-process", "--data-dir", str(core.data_dir), *PORTS),
        env=dict(environment()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "another secrethub dev runs" in done.stderr
    assert core.addresses() == before


def test_keys_that_open_no_more_are_told_of(start: Starts) -> None:
    """After a rekey its start says whose keys do not fit and what to do; by hand it is unsealed."""
    core = start("--single-process")
    core.child.stop(60.0)
    kept = core.data_dir / "state" / "unseal.json"
    good = json.loads(kept.read_text())
    others = [base64.b64encode(bytes([number]) * 33).decode() for number in range(1, 6)]
    kept.write_text(json.dumps(good | {"unseal_keys": others}))
    done = subprocess.run(
        command("dev", "--single-process", "--data-dir", str(core.data_dir), *PORTS),
        env=dict(environment()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"Error: the unseal keys in {kept} do not open the seal")
    assert "--uninitialised" in said
    core = start("--single-process", "--uninitialised")
    shell = Shell({**environment(), "SECRETHUB_ADDR": core.addresses().api}, core.data_dir)
    shell("operator", "unseal", stdin="\n".join(good["unseal_keys"][:3]))
    core.wait_for_root()


@pytest.mark.parametrize("folder", ["/proc/none", "/dev/null"])
def test_an_unusable_folder_is_one_clear_line(folder: str) -> None:
    """A folder that cannot be made or used is named, without a traceback."""
    done = subprocess.run(
        command("dev", "--single-process", "--data-dir", folder, *PORTS),
        env=dict(environment()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: --data-dir: {folder}: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_of_something_else_is_left_alone(place: Path) -> None:
    """A folder with files that no dev has made, such as a server's, is refused and stays as it is."""
    state = place / "server"
    state.mkdir()
    (state / "cluster.key").write_text("theirs")
    done = subprocess.run(
        command("dev", "--single-process", "--data-dir", str(state), *PORTS),
        env=dict(environment()),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"--data-dir: {state} has files of something else" in done.stderr
    assert [file.name for file in state.iterdir()] == ["cluster.key"]


def test_a_server_refuses_dev_s_database(start: Starts, place: Path) -> None:
    """A server does not start on a database that dev has made, and says why."""
    core = start("--single-process")
    key = place / "cluster.key"
    key.touch(0o600)
    key.write_text("ab" * 32)
    config = place / "secrethub.toml"
    doors = "".join(f"[{door}]\nport = 0\n" for door in ("http", "tls", "agents", "serve", "metrics"))
    files = f'state_dir = "{place}/server"\ncluster_key_file = "{key}"\n'
    config.write_text(f"{files}{doors}[ray]\nport = 0\ndashboard_port = 0\n")
    done = subprocess.run(
        command("server", "--config", str(config)),
        env={**environment(), "DATABASE_URL": core.addresses().database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "secrethub dev" in done.stderr
    assert "Traceback" not in done.stderr
