"""The daemon as a service manager and a person at a terminal see it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_process import ROOT, AgentProcess
from core_peer import CorePeer

from agent.disk_cache import in_memory
from secrethub.wire.close_codes import CloseCode

PATH = "secrets/prod/db"
MEMORY = Path("/dev/shm")
needs_tmpfs = pytest.mark.skipif(not in_memory(MEMORY), reason="needs a tmpfs at /dev/shm")


def file_settings(agent: AgentProcess) -> str:
    """Return the settings of one file."""
    return f"""
    [[template]]
    content = '{{{{ secret("prod/db").password }}}}'
    destination = "{agent.place / "app.env"}"
    """


def socket_settings(agent: AgentProcess) -> str:
    """Return the settings of a socket for this user."""
    return f"""
    [socket]
    path = "{agent.place / "agent.sock"}"
    [[socket.allow]]
    user = {os.geteuid()}
    paths = ["secrets/**"]
    """


async def ask(agent: AgentProcess, target: str = f"/v1/{PATH}") -> tuple[int, object]:
    """Ask over the agent's socket; returns status and body."""
    reader, writer = await asyncio.open_unix_connection(str(agent.place / "agent.sock"))
    writer.write(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("SECRETHUB_")}
    argv = [sys.executable, "-m", "agent.daemon", *arguments]
    return subprocess.run(
        argv, cwd=ROOT, env={**base, **environment}, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A runtime directory on a tmpfs."""
    path = Path(tempfile.mkdtemp(prefix="secrethub-test-", dir=MEMORY))
    yield path
    shutil.rmtree(path)


# The command line


def test_help_names_commands_and_variables() -> None:
    """``--help`` says what there is to run and to set."""
    done = command("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("run", "check", "SECRETHUB_CORE_URL", "exit codes"))


@pytest.mark.parametrize("arguments", [(), ("surprise",), ("run", "--surprise")])
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    """What the command line does not know is wrong usage."""
    assert command(*arguments).returncode == 2


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    """``check`` names every problem that shows without a connection, and exits with 2."""
    (tmp_path / "ca.pem").write_text("no certificate")
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
        [core]
        url = "https://core:4443"
        ca_file = "{tmp_path / "ca.pem"}"
        [state]
        dir = "{tmp_path / "state"}"
        [[template]]
        content = '{{{{ secret("a").b '
        destination = "/run/app.env"
        [[template]]
        source = "{tmp_path / "none.j2"}"
        destination = "/run/other.env"
        """
    )
    done = command("check", "--config", str(config))
    assert done.returncode == 2
    for told in ("core.ca_file", "app.env: line 1", "none.j2", "auth.role_id", "auth.secret_id_file"):
        assert told in done.stderr
    assert command("run", "--config", str(config)).returncode == 2


def test_check_accepts_what_can_work(tmp_path: Path) -> None:
    """Usable settings are said to be usable, and nothing is made or contacted."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[state]\ndir = "{tmp_path / "state"}"\n[[template]]\ncontent = "x"\ndestination = "/run/x"\n'
    )
    environment = {
        "SECRETHUB_CORE_URL": "https://core:4443",
        "SECRETHUB_ROLE_ID": "role",
        "SECRETHUB_SECRET_ID": "canary",
    }
    done = command("check", "--config", str(config), **environment)
    assert (done.returncode, "usable" in done.stdout) == (0, True)
    assert "canary" not in done.stdout + done.stderr
    assert not (tmp_path / "state").exists()


def test_check_warns_of_what_will_not_work_for_somebody(tmp_path: Path) -> None:
    """A user who is allowed and may not open the socket is no reason not to start, but is said."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
        [state]
        dir = "{tmp_path / "state"}"
        [socket]
        path = "{tmp_path / "agent.sock"}"
        [[socket.allow]]
        user = 12345
        paths = ["secrets/**"]
        """
    )
    environment = {
        "SECRETHUB_CORE_URL": "https://core:4443",
        "SECRETHUB_ROLE_ID": "role",
        "SECRETHUB_SECRET_ID": "canary",
    }
    done = command("check", "--config", str(config), **environment)
    assert (done.returncode, "usable" in done.stdout) == (0, True)
    assert "warning: socket.allow[1]" in done.stderr


def test_check_warns_of_templates_that_will_not_get_into_their_place(tmp_path: Path) -> None:
    """A name that templates do not have, a folder or a program that is not there: the agent can start."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
        [state]
        dir = "{tmp_path / "state"}"
        [[template]]
        content = '{{% set own = 1 %}}{{{{ secrets("a").b }}}} {{{{ secret("a").b }}}} {{{{ own }}}}'
        destination = "{tmp_path / "one"}"
        reload = {{ command = ["no-such-program"] }}
        [[template]]
        content = "x"
        destination = "{tmp_path / "none" / "two"}"
        [[template]]
        content = "x"
        destination = "{tmp_path}"
        """
    )
    environment = {
        "SECRETHUB_CORE_URL": "https://core:4443",
        "SECRETHUB_ROLE_ID": "role",
        "SECRETHUB_SECRET_ID": "canary",
    }
    done = command("check", "--config", str(config), **environment)
    assert (done.returncode, "usable" in done.stdout) == (0, True)
    for told in ("no secrets in templates", "no program no-such-program", "no folder", "that is a folder"):
        assert told in done.stderr
    assert done.stderr.count("warning: template") == 4


# As a service


async def test_systemd_hears_when_it_is_ready_and_when_it_stops(core: CorePeer, agent: AgentProcess) -> None:
    """READY comes after the files were tried, STOPPING when it was asked to stop."""
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent))
    address = agent.place / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(20)
        await agent.start(NOTIFY_SOCKET=str(address))
        assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
        assert (agent.place / "app.env").exists()
        assert await agent.stop() == 0
        assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1"


async def test_the_process_is_protected(core: CorePeer, agent: AgentProcess) -> None:
    """It leaves no core dumps, and its command line holds no secret."""
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent))
    process = await agent.start()
    await agent.until((agent.place / "app.env").exists)
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
    assert "canary" not in Path(f"/proc/{process.pid}/cmdline").read_text()


async def test_one_agent_at_a_time(core: CorePeer, agent: AgentProcess) -> None:
    """A second agent with the same state ends at once and says why."""
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent))
    await agent.start()
    await agent.until((agent.place / "app.env").exists)
    done = await asyncio.to_thread(command, "run", "--config", str(agent.config))
    assert done.returncode == 1
    assert "another agent uses" in done.stderr


async def test_logs_are_json_lines(core: CorePeer, agent: AgentProcess) -> None:
    """Every line on stderr is an object with time, level, logger and message."""
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent) + '[log]\nlevel = "debug"')
    await agent.start()
    await agent.until((agent.place / "app.env").exists)
    await agent.stop()
    for line in agent.log_file.read_text().splitlines():
        assert {"at", "level", "logger", "message"} <= set(json.loads(line))


async def test_files_are_written_from_the_cache_while_core_is_away(
    core: CorePeer, agent: AgentProcess
) -> None:
    """A connection that comes and goes leaves the file alone; while Core is away nothing is lost."""
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent))
    await agent.start()
    await agent.until((agent.place / "app.env").exists)
    core.close_with = (CloseCode.GOING_AWAY, "")
    for peer in list(core.sessions):
        await peer.socket.close(1001)
    await agent.until(lambda: agent.logged("the connection to Core ended"))
    assert (agent.place / "app.env").read_text() == "canary-1"
    core.close_with = None
    await agent.until(lambda: len(core.sessions) == 1)


@needs_tmpfs
async def test_a_restart_while_core_is_away_keeps_serving(
    core: CorePeer, agent: AgentProcess, runtime: Path
) -> None:
    """The encrypted cache on disk bridges a restart of the agent, also SIGKILL, while Core is away."""
    await core.write(PATH, password="canary-1")
    agent.configure(socket_settings(agent))
    await agent.start(XDG_RUNTIME_DIR=str(runtime))
    await agent.until(lambda: agent.logged("connected to Core"))
    assert (await ask(agent))[0] == 200
    await agent.until(lambda: any((agent.state / "cache").glob("[0-9a-f]*")))
    await agent.kill()
    core.close_with = (CloseCode.TRY_AGAIN_LATER, "retry in 60")
    await agent.start(XDG_RUNTIME_DIR=str(runtime))
    await agent.until(lambda: sum(line["message"] == "ready" for line in agent.log()) == 2)
    status, body = await ask(agent)
    assert status == 200
    assert body["data"]["data"] == {"password": "canary-1"}  # type: ignore[index]
    assert b"canary" not in b"".join(p.read_bytes() for p in agent.state.rglob("*") if p.is_file())


@needs_tmpfs
async def test_a_file_from_the_cache_is_noted(core: CorePeer, agent: AgentProcess, runtime: Path) -> None:
    """What a template gets while Core is away is in the local ledger."""
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent))
    await agent.start(XDG_RUNTIME_DIR=str(runtime))
    await agent.until(lambda: any((agent.state / "cache").glob("[0-9a-f]*")))
    await agent.kill()

    def noted() -> list[tuple[str, str, str]]:
        lines = [line for file in (agent.state / "handed-out").iterdir() for line in file.open()]
        return [(line["application"], line["path"], line["source"]) for line in map(json.loads, lines)]

    # The file may have been looked at twice; the second time it is from the cache.
    assert ("agent", PATH, "stale") not in noted()
    core.close_with = (CloseCode.TRY_AGAIN_LATER, "retry in 60")
    (agent.place / "app.env").unlink(missing_ok=True)
    await agent.start(XDG_RUNTIME_DIR=str(runtime))
    await agent.until((agent.place / "app.env").exists)
    assert noted()[-1] == ("agent", PATH, "stale")


@needs_tmpfs
async def test_a_revoked_agent_forgets_everything_and_ends(
    core: CorePeer, agent: AgentProcess, runtime: Path
) -> None:
    """When Core revokes the agent, its cache is destroyed, in memory and on disk, and it exits with 1."""
    await core.write(PATH, password="canary-1")
    agent.configure(socket_settings(agent))
    process = await agent.start(XDG_RUNTIME_DIR=str(runtime))
    await agent.until(lambda: agent.logged("connected to Core"))
    assert (await ask(agent))[0] == 200
    await agent.until(lambda: any((agent.state / "cache").glob("[0-9a-f]*")))
    await core.sessions[0].socket.close(CloseCode.REVOKED, "revoked")
    assert await asyncio.wait_for(process.wait(), 20) == 1
    assert list((agent.state / "cache").iterdir()) == []
    assert list(runtime.rglob("*.key")) == []
    assert agent.log()[-1]["code"] == "identity_refused"


async def test_a_refused_agent_comes_back_with_a_new_secret_id(core: CorePeer, agent: AgentProcess) -> None:
    """A refused identity is not tried again: without a SecretID the agent says so, with one it enrols."""
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent))
    process = await agent.start()
    await agent.until((agent.place / "app.env").exists)
    await core.sessions[0].socket.close(CloseCode.REVOKED, "revoked")
    assert await asyncio.wait_for(process.wait(), 20) == 1
    assert "revoked" not in agent.log()[-1]["error"]
    process = await agent.start()
    assert await asyncio.wait_for(process.wait(), 20) == 2
    assert "approved" in agent.log_file.read_text().splitlines()[-1]
    assert len(core.sessions) == 0
    agent.secret_id_file.write_text(core.secret_id)
    await agent.start()
    await agent.until(lambda: len(core.sessions) == 1)
    await agent.until(lambda: not agent.secret_id_file.exists())
    assert not (agent.state / "refused.pem").exists()


async def test_it_stops_while_it_waits_for_a_slow_core(core: CorePeer, agent: AgentProcess) -> None:
    """SIGTERM ends the agent also while requests are under way."""
    arrived, forever = asyncio.Event(), asyncio.Event()

    async def on_read(_path: str) -> None:
        arrived.set()
        await forever.wait()

    core.on_read = on_read
    await core.write(PATH, password="canary-1")
    agent.configure(file_settings(agent))
    await agent.start()
    await asyncio.wait_for(arrived.wait(), 20)
    assert await agent.stop() == 0
    forever.set()


async def test_the_environment_alone_configures_an_agent(core: CorePeer, place: Path) -> None:
    """Core's address, pin and credentials may come from the environment; no file holds the SecretID."""
    await core.write(PATH, password="canary-1")
    agent = AgentProcess(core, place)
    agent.config.write_text(file_settings(agent) + f'[state]\ndir = "{agent.state}"\n')
    await agent.start(
        SECRETHUB_CORE_URL=core.https_url,
        SECRETHUB_CA_SHA256=core.authorities.root_sha256,
        SECRETHUB_ROLE_ID=core.role_id,
        SECRETHUB_SECRET_ID=core.secret_id,
        SECRETHUB_AUTH__KEY_TYPE="ecdsa-p256",
    )
    with contextlib.ExitStack() as after:
        after.callback(lambda: agent.process and not agent.ended and agent.process.kill())
        await agent.until((place / "app.env").exists)
        assert await agent.stop() == 0
    assert not any(b"canary-secret-id" in p.read_bytes() for p in place.rglob("*") if p.is_file())


async def test_where_core_has_moved_is_stored(core: CorePeer, agent: AgentProcess) -> None:
    """What a gateway says of all gateways is there at the next start."""
    core.agent_urls = (core.agent_url, "wss://other.example.com:4665")
    stored = agent.state / "endpoints.json"
    agent.configure(socket_settings(agent))
    await agent.start()
    await agent.until(lambda: stored.exists() and "other.example.com" in stored.read_text())
    assert await agent.stop() == 0
    assert set(json.loads(stored.read_text())) == set(core.agent_urls)
