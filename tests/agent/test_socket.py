"""The socket for local applications: who is let in, what is answered, what is refused."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from agent_process import AgentProcess
from core_peer import CorePeer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs processes of other users")
OTHER = 12_345
PATH = "secrets/prod/app/db"


class Socket:
    """The socket of a running agent."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.path = agent.place / "run" / "agent.sock"

    async def start(self, *allow: str, mode: str = "0666") -> None:
        """Start the agent with these entries."""
        entries = "".join(f"[[socket.allow]]\n{textwrap.dedent(entry)}\n" for entry in allow)
        self.agent.configure(f'[socket]\npath = "{self.path}"\nmode = "{mode}"\n{entries}')
        self.agent.place.chmod(0o755)
        await self.agent.start()
        await self.agent.until(lambda: self.agent.logged("connected to Core"))
        await self.agent.until(self.path.exists)

    async def curl(self, target: str, *options: str, user: int | None = None) -> tuple[int, Any]:
        """Ask with curl, as another user if asked to; returns status and decoded body."""
        return await asyncio.to_thread(self._curl, target, options, user)

    def _curl(self, target: str, options: tuple[str, ...], user: int | None) -> tuple[int, Any]:
        argv = [
            "curl",
            "-s",
            "--path-as-is",
            "-w",
            "\n%{http_code}",
            "--unix-socket",
            str(self.path),
            *options,
        ]
        argv.append(f"http://localhost{target}")
        groups: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, **groups)
        assert done.returncode == 0, done.stderr
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else None

    async def raw(self, sent: bytes) -> bytes:
        """Send bytes and return everything that comes back until the end."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer


OWN = f'user = {os.geteuid()}\npaths = ["secrets/prod/app/*"]'


@pytest.fixture
async def door(core: CorePeer, agent: AgentProcess) -> Socket:
    """A socket that is not there yet, and a Core with a secret."""
    await core.write(PATH, password="canary-1")
    await core.write("secrets/prod/other", password="canary-2")
    return Socket(agent)


# What is answered


async def test_a_secret_is_read_with_curl(door: Socket) -> None:
    """The flat path and the path of KV version 2 answer the same, in Vault's shape."""
    await door.start(OWN)
    for target in ("/v1/secrets/prod/app/db", "/v1/secret/data/prod/app/db", "/v1/secrets/prod/app/d%62"):
        status, body = await door.curl(target)
        assert status == 200
        assert body["data"]["data"] == {"password": "canary-1"}
        assert body["data"]["metadata"]["version"] == 1
        assert set(body) == {
            *("request_id", "lease_id", "renewable", "lease_duration"),
            *("data", "wrap_info", "warnings", "auth"),
        }


async def test_a_version_is_read_by_number(door: Socket) -> None:
    """``?version=`` asks for that version; 0 is the newest; what is no number is refused."""
    await door.start(OWN)
    status, body = await door.curl(f"/v1/{PATH}?version=7")
    assert (status, body["data"]["metadata"]["version"]) == (200, 7)
    assert (await door.curl(f"/v1/{PATH}?version=0"))[1]["data"]["metadata"]["version"] == 1
    assert (await door.curl(f"/v1/{PATH}?version=x"))[0] == 400


async def test_vaults_client_can_read(door: Socket) -> None:
    """The requests of Vault's own command line are understood: mount first, then the secret."""
    await door.start(OWN)
    headers = ("-H", "X-Vault-Request: true", "-H", "X-Vault-Token: ignored")
    status, body = await door.curl("/v1/sys/internal/ui/mounts/secret/prod/app/db", *headers)
    assert (status, body["data"]["path"], body["data"]["options"]["version"]) == (200, "secret/", "2")
    assert (await door.curl("/v1/secret/data/prod/app/db", *headers))[0] == 200


async def test_answers_are_not_to_be_stored(door: Socket) -> None:
    """The type is exactly what Vault's clients compare with, and no cache may keep the answer."""
    await door.start(OWN)
    answer = await door.raw(f"GET /v1/{PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0] == "HTTP/1.1 200 OK"
    assert {"Content-Type: application/json", "Cache-Control: no-store", "Connection: close"} <= set(head)


async def test_one_connection_serves_many_requests(door: Socket) -> None:
    """A client that keeps its connection, as Python's does, gets answer after answer."""
    await door.start(OWN)

    def ask() -> list[int]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(door.path))
        statuses = []
        for _number in range(50):
            connection.request("GET", f"/v1/{PATH}")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        return statuses

    assert await asyncio.to_thread(ask) == [200] * 50


async def test_health_and_status_hold_no_secret(door: Socket, core: CorePeer) -> None:
    """Health is for everybody, status tells how the agent does."""
    await door.start(OWN)
    await door.curl(f"/v1/{PATH}")
    status, health = await door.curl("/v1/sys/health")
    assert (status, health["core_connected"], health["sealed"]) == (200, True, False)
    status, described = await door.curl("/v1/agent/status")
    assert (status, described["data"]["agent_id"]) == (200, core.agent_id)
    assert described["data"]["cached"] == 1
    assert "canary" not in json.dumps(described)


@pytest.mark.parametrize(
    ("code", "status", "errors"),
    [
        ("not_found", 404, []),
        ("permission_denied", 403, ["permission denied"]),
        ("sealed", 503, ["sealed"]),
        ("unavailable", 503, ["unavailable"]),
        ("internal", 500, ["internal error"]),
    ],
)
async def test_cores_errors_are_passed_on(
    door: Socket, core: CorePeer, code: str, status: int, errors: list[str]
) -> None:
    """What Core refuses the agent is refused to the application, in the shape of Vault's errors."""
    core.refusals[PATH] = code
    await door.start(OWN)
    assert await door.curl(f"/v1/{PATH}") == (
        status,
        {"errors": errors, "code": code if status != 500 else "internal"},
    )


async def test_stale_answers_say_so_and_are_noted(door: Socket, core: CorePeer) -> None:
    """What is answered without Core is in the local ledger, and a stale answer carries a warning."""
    await door.start(OWN)
    assert (await door.curl(f"/v1/{PATH}"))[0] == 200
    assert (await door.curl(f"/v1/{PATH}"))[1]["warnings"] is None
    core.refusals[PATH] = "unavailable"
    await core.announce(PATH, 2)
    await door.agent.until(lambda: core.reads(PATH) == 2)
    status, body = await door.curl(f"/v1/{PATH}")
    assert (status, body["data"]["data"]) == (200, {"password": "canary-1"})
    assert "out of date" in body["warnings"][0]
    (ledger,) = (door.agent.state / "handed-out").iterdir()
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [line["source"] for line in lines] == ["cache", "stale"]
    assert [line["uid"] for line in lines] == [os.geteuid()] * 2
    assert "canary" not in ledger.read_text()


# Who is let in


async def test_only_granted_paths_are_read(door: Socket, core: CorePeer) -> None:
    """A path outside the entry is refused here and not even asked of Core."""
    await door.start(OWN)
    denied = (403, {"errors": ["permission denied"], "code": "permission_denied"})
    assert await door.curl("/v1/secrets/prod/other") == denied
    assert await door.curl("/v1/secret/data/prod/other") == denied
    assert core.reads("secrets/prod/other") == 0


async def test_without_an_entry_nobody_reads(door: Socket, core: CorePeer) -> None:
    """Not even root, which may see the status."""
    await door.start()
    assert (await door.curl(f"/v1/{PATH}"))[0] == 403
    assert (await door.curl("/v1/agent/status"))[0] == 200
    assert core.messages == [message for message in core.messages if not hasattr(message, "path")]


@as_root
async def test_another_user_is_another_application(door: Socket, core: CorePeer) -> None:
    """The kernel says who connected: a user without an entry is refused, with one it reads its own."""
    await core.write("secrets/theirs/x", value="canary-3")
    await door.start(OWN, f'user = {OTHER}\npaths = ["secrets/theirs/*"]')
    assert (await door.curl("/v1/secrets/theirs/x", user=OTHER))[0] == 200
    assert (await door.curl(f"/v1/{PATH}", user=OTHER))[0] == 403
    assert (await door.curl("/v1/secrets/theirs/x"))[0] == 403
    assert (await door.curl(f"/v1/{PATH}", user=OTHER + 1))[0] == 403
    assert (await door.curl("/v1/agent/status", user=OTHER + 1))[0] == 403
    assert (await door.curl("/v1/sys/health", user=OTHER + 1))[0] == 200
    refusals = [line for line in door.agent.log() if line["message"] == "refused"]
    assert {(line["uid"], line["path"]) for line in refusals} >= {(OTHER, PATH), (OTHER + 1, PATH)}


@as_root
async def test_the_overflow_user_is_nobody(door: Socket) -> None:
    """The id that stands for all unknown users is not identified at all."""
    await door.start(OWN)
    assert (await door.curl(f"/v1/{PATH}", user=65_534))[0] == 403


@as_root
async def test_a_group_grants_also_when_it_is_supplementary(door: Socket) -> None:
    """Membership counts as the kernel had it at the moment of connecting."""
    await door.start(f'group = {OTHER}\npaths = ["secrets/prod/**"]')
    argv = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", str(door.path)]

    def ask(*groups: int) -> str:
        url = f"http://localhost/v1/{PATH}"
        done = subprocess.run(
            [*argv, url], capture_output=True, text=True, check=True, user=777, group=777, extra_groups=groups
        )
        return done.stdout

    assert await asyncio.to_thread(ask, OTHER) == "200"
    assert await asyncio.to_thread(ask, OTHER + 1) == "403"


@as_root
async def test_a_process_in_another_user_namespace_is_nobody(door: Socket) -> None:
    """Root of a namespace of its own is not root here."""
    await door.start(OWN)
    argv = ["unshare", "--user", "--map-root-user", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"]
    argv += ["--unix-socket", str(door.path), f"http://localhost/v1/{PATH}"]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.stdout == "403"


async def test_an_executable_narrows(door: Socket) -> None:
    """With the wrong program the right user is refused."""
    curl = shutil.which("curl")
    assert curl is not None
    await door.start(f'{OWN}\nexecutable = "{Path(curl).resolve()}"')
    assert (await door.curl(f"/v1/{PATH}"))[0] == 200
    answer = await door.raw(f"GET /v1/{PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert b"403" in answer.splitlines()[0]


async def test_after_fork_and_exec_the_program_is_the_one_that_connected_or_nobody(door: Socket) -> None:
    """A child that inherits a connection does not thereby become the right program."""
    await door.start(f'{OWN}\nexecutable = "/usr/bin/true"')
    program = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.set_inheritable(True)
if os.fork() == 0:
    connection.sendall(b"GET /v1/secrets/prod/app/db HTTP/1.0\\r\\n\\r\\n")
    print(connection.recv(65536).decode().splitlines()[0], flush=True)
    os._exit(0)
os.wait()
"""
    argv = [sys.executable, "-c", program, str(door.path)]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "HTTP/1.1 403 Forbidden"


async def test_a_peer_that_has_ended_is_nobody(door: Socket) -> None:
    """Whoever connected and ended is not mistaken for a process that got its number."""
    await door.start(OWN)
    program = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
if os.fork() == 0:
    connection.connect(sys.argv[1])
    os._exit(0)
os.wait()
connection.sendall(b"GET /v1/secrets/prod/app/db HTTP/1.0\\r\\n\\r\\n")
print("sent", flush=True)
print(connection.recv(65536).decode().splitlines()[0])
"""
    process = door.agent.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)  # so that it accepts only after the peer has ended
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(door.path), stdout=asyncio.subprocess.PIPE
    )
    assert asking.stdout is not None
    assert await asking.stdout.readline() == b"sent\n"
    process.send_signal(signal.SIGCONT)
    assert (await asking.stdout.readline()).strip() == b"HTTP/1.1 403 Forbidden"
    await asking.wait()


# What is refused


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/secrets/prod/app/../app/db", 400),
        ("/v1/secrets//prod", 400),
        ("/v1/secrets/prod%2fapp/db", 400),
        ("/v1/secrets/prod/app/%00", 400),
        ("/v1/secrets/prod/app/%zz", 400),
        ("/secrets/prod/app/db", 400),
        ("/v1/sys/seal", 404),
        ("/v1/secret/metadata/prod/app/db", 404),
        ("/v1/secrets", 404),
        (f"/v1/{PATH}?list=true", 400),
        ("/v1/secrets/prod/app/" + "x" * 1010, 400),
    ],
)
async def test_odd_paths_are_refused(door: Socket, core: CorePeer, target: str, status: int) -> None:
    """A path has one canonical form or is refused; what the agent does not serve is not there."""
    await door.start(OWN)
    assert (await door.curl(target))[0] == status
    assert not [
        message for message in core.messages if hasattr(message, "version") and hasattr(message, "path")
    ]


async def test_what_a_header_asks_for_is_not_ignored(door: Socket) -> None:
    """A secret that was to be wrapped is not given in clear, nor one of a namespace, nor of two versions."""
    await door.start(OWN)
    for header in ("X-Vault-Wrap-TTL: 60", "X-Vault-Namespace: team"):
        status, body = await door.curl(f"/v1/{PATH}", "-H", header)
        assert (status, body["code"]) == (400, "invalid_request")
        assert "canary" not in json.dumps(body)
    assert (await door.curl(f"/v1/{PATH}?version=1&version=7"))[0] == 400
    for header in ("X-Vault-Wrap-TTL: 0", "X-Vault-Namespace: root/", "X-Vault-Request: true"):
        assert (await door.curl(f"/v1/{PATH}", "-H", header))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "LIST", "PATCH", "OPTIONS"])
async def test_the_agent_only_reads(door: Socket, method: str) -> None:
    """Every other method is refused, with or without a body."""
    await door.start(OWN)
    status, body = await door.curl(f"/v1/{PATH}", "-X", method, "-d", "{}")
    assert (status, body["code"]) == (405, "unsupported_operation")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/sys/health HTTP/1.1\r\n\r\n", b"400"),
        (b"garbage\r\n\r\n", b"400"),
        (b"GET /v1/sys/health HTTP/1.1\nHost: x\n\n", None),
        (b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", b"431"),
        (
            b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            b"400",
        ),
    ],
)
async def test_what_is_no_request_is_refused(door: Socket, sent: bytes, status: bytes | None) -> None:
    """Malformed and oversized requests get an error and a closed connection; the agent goes on."""
    await door.start(OWN)
    answer = await door.raw(sent)
    assert answer.splitlines()[0].split()[1] == status if status else answer == b""
    assert (await door.curl("/v1/sys/health"))[0] == 200


async def test_connections_are_limited_per_user(door: Socket) -> None:
    """A user who holds many connections is refused more of them, and served again afterwards."""
    await door.start(OWN)
    held = [await asyncio.open_unix_connection(str(door.path)) for _number in range(64)]
    for _reader, writer in held:
        writer.write(b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n")
    for reader, _writer in held:
        await reader.readuntil(b"\r\n\r\n")
    assert (await door.curl("/v1/sys/health"))[0] == 429
    for _reader, writer in held:
        writer.close()

    async def served() -> bool:
        return (await door.curl("/v1/sys/health"))[0] == 200

    async with asyncio.timeout(10):
        while not await served():
            pass


async def test_an_idle_client_is_no_defect_when_the_agent_stops(door: Socket) -> None:
    """A connection that waits for its next request ends quietly with the agent."""
    await door.start(OWN)
    reader, writer = await asyncio.open_unix_connection(str(door.path))
    writer.write(b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    assert await door.agent.stop() == 0
    writer.close()
    assert not [line for line in door.agent.log() if line["level"] == "error"]


# The socket itself


async def test_the_socket_has_its_mode_and_goes_with_the_agent(door: Socket) -> None:
    """Mode as set, nothing else in its folder, and no socket once the agent has stopped."""
    await door.start(OWN, mode="0640")
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o640
    assert [path.name for path in door.path.parent.iterdir()] == ["agent.sock"]
    assert await door.agent.stop() == 0
    assert list(door.path.parent.iterdir()) == []


async def test_a_socket_left_behind_is_replaced(door: Socket) -> None:
    """After SIGKILL the socket lies there without a listener; the next agent takes its place."""
    await door.start(OWN)
    await door.agent.kill()
    assert door.path.exists()
    await door.agent.start()
    await door.agent.until(lambda: sum(line["message"] == "ready" for line in door.agent.log()) == 2)
    assert (await door.curl(f"/v1/{PATH}"))[0] == 200


async def test_a_live_socket_is_not_taken_over(door: Socket) -> None:
    """Where somebody listens, the agent does not start."""
    door.path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(door.path))
        other.listen()
        door.agent.configure(f'[socket]\npath = "{door.path}"\n[[socket.allow]]\n{OWN}\n')
        process = await door.agent.start()
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert "another process listens" in door.agent.log()[-1]["error"]


@pytest.mark.parametrize("kind", ["file", "symlink", "folder"])
async def test_nothing_but_a_socket_is_replaced(door: Socket, kind: str) -> None:
    """A file, a symlink or an unsafe folder in the place of the socket ends the start with a reason."""
    door.path.parent.mkdir()
    match kind:
        case "file":
            door.path.write_text("untouched")
        case "symlink":
            door.path.symlink_to("elsewhere")
        case "folder":
            door.path.parent.chmod(0o777)
    door.agent.configure(f'[socket]\npath = "{door.path}"\n[[socket.allow]]\n{OWN}\n')
    process = await door.agent.start()
    assert await asyncio.wait_for(process.wait(), 20) == 2
    assert door.path.is_symlink() == (kind == "symlink")
    assert kind != "file" or door.path.read_text() == "untouched"
