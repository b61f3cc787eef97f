"""``secrethub dev`` as a process: what it leaves, what it keeps, who can reach it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from cluster.demo.core import Core, environment
from cluster.demo.processes import command, descendants
from tests.e2e.processes import alive, until
from tests.folders import traversable

pytestmark = pytest.mark.timeout(400)

STRANGERS = ("serve", "agent", "actors", "secrethub", "cluster")
PORTS = [word for name in ("--port", "--tls-port", "--agent-port", "--metrics-port") for word in (name, "0")]
_SECRET = "a canary in the store"


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


@pytest.fixture(scope="module")
def on_ray() -> Iterator[tuple[Core, Starts]]:
    """One with Ray for several tests, started where a stranger has left packages of our names."""
    with traversable() as made:
        for name in STRANGERS:
            (made / name).mkdir()
            (made / name / "__init__.py").write_text(f"open({str(made / 'shadowed')!r}, 'w').close()\n")
        starts = Starts(made)
        yield starts(), starts
        starts.end()


def put(core: Core) -> None:
    """Write a secret."""
    core.client(core.addresses().root_token).write("secrets/kept", {"data": {"value": _SECRET}})


def value(core: Core) -> object:
    """Read it."""
    return core.client(core.addresses().root_token).read("secrets/kept").data["data"]["value"]


def test_a_single_process_keeps_data_and_nothing_else(start: Starts) -> None:
    """After SIGKILL no process is left and a new start has the data; after SIGTERM nothing is left either."""
    ends(start("--single-process"), lambda: start("--single-process"))


def ends(core: Core, again: Callable[[], Core]) -> None:
    """Check both ends: killed, PostgreSQL ends cleanly and keeps the data; told, ``dev.json`` goes too."""
    put(core)
    everybody = {core.child.pid, *descendants(core.child.pid)}
    database = Path(json.loads((core.data_dir / "dev.json").read_text())["postgres_dir"])
    os.kill(core.child.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in everybody), "the end of everything dev had started")
    assert "database system is shut down" in (database / "log").read_text()
    core = again()
    assert value(core) == _SECRET
    everybody = {core.child.pid, *descendants(core.child.pid)}
    core.child.stop(60.0)
    until(lambda: not any(alive(pid) for pid in everybody), "the end of everything dev had started")
    assert not (core.data_dir / "dev.json").exists()


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


def test_only_this_machine_reaches_it(on_ray: tuple[Core, Starts]) -> None:
    """Every socket that dev and Ray listen on is on loopback, and Ray does nothing without its token."""
    core, _ = on_ray
    listening = listeners({core.child.pid, *descendants(core.child.pid)})
    assert listening
    assert not {address for address in listening if not address.startswith(("127.", "::1", "::ffff:127."))}
    plan = json.loads((core.data_dir / "run" / "ray.json").read_text()) if short(core) else ray_plan(core)
    for port, path in ((plan["dashboard_port"], "/api/jobs/"), (plan["agent_port"], "/api/job_agent/jobs/")):
        answer = httpx2.post(f"http://127.0.0.1:{port}{path}", json={"entrypoint": "id"}, trust_env=False)
        assert answer.status_code in {401, 403}


def test_a_stranger_s_folder_shadows_nothing(on_ray: tuple[Core, Starts]) -> None:
    """Packages of our names in the working directory are not imported by any process that dev starts."""
    core, _ = on_ray
    there = core.data_dir.parent
    assert all((there / name / "__init__.py").exists() for name in STRANGERS)
    assert not (there / "shadowed").exists()


def test_no_secret_is_in_any_argument(on_ray: tuple[Core, Starts]) -> None:
    """No process that dev starts has a token, key, share or database password in its arguments."""
    core, _ = on_ray
    told = json.loads((core.data_dir / "dev.json").read_text())
    password = re.search(r":([^:@/]+)@", told["database_url"])
    assert password is not None
    secrets = [told["root_token"], *told["unseal_keys"], password[1]]
    secrets.append((core.data_dir / "state" / "cluster.key").read_text().strip())
    secrets.append((core.data_dir / "state" / "ray-token").read_text().strip())
    lines = descendants(core.child.pid).values()
    assert lines
    assert not [line for line in lines for secret in secrets if secret in line]


def test_no_process_stands_back(on_ray: tuple[Core, Starts]) -> None:
    """Ray's workers, the gateway among them, have the priority of what started them."""
    core, _ = on_ray
    workers = [pid for pid, line in descendants(core.child.pid).items() if "ray::" in line]
    assert workers
    ours = os.getpriority(os.PRIO_PROCESS, core.child.pid)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in workers} == {ours}


def test_with_ray_data_is_kept_and_nothing_else(on_ray: tuple[Core, Starts]) -> None:
    """After SIGKILL no process is left and a new start has the data; after SIGTERM nothing is left either."""
    core, start = on_ray
    ends(core, start)


def short(core: Core) -> bool:
    """Whether the run directory lies below the data directory."""
    return (core.data_dir / "run" / "ray.json").exists()


def ray_plan(core: Core) -> dict[str, int]:
    """How Ray was started, where the run directory is elsewhere."""
    return dict(json.loads(((core.data_dir / "state" / "run-dir").readlink() / "ray.json").read_text()))


def listeners(pids: set[int]) -> set[str]:
    """Addresses that these processes listen on, TCP over IPv4 and IPv6."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(_address(fields[1].partition(":")[0]))
    return found


def _address(text: str) -> str:
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
