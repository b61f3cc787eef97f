"""What the agent costs a host: memory, and what it drags in."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from agent_process import ROOT, AgentProcess
from core_peer import CorePeer, Secret, until

from agent.cache import OVERHEAD
from secrethub.wire import messages as wire

LIMIT = 60 * 1024
"""KiB of resident memory."""
FORBIDDEN = {"ray", "sqlalchemy", "starlette", "asyncpg", "pydantic", "httpx2", "actors", "serve", "cluster"}


def resident(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


async def test_a_running_agent_stays_small(core: CorePeer, agent: AgentProcess) -> None:
    """After enrolment with an RSA key, a rendered template, a reload and socket traffic: below 60 MB."""
    await core.write("secrets/prod/db", password="canary-1")
    file, socket = agent.place / "app.env", agent.place / "agent.sock"
    agent.configure(
        f"""
        [socket]
        path = "{socket}"
        [[socket.allow]]
        user = {os.geteuid()}
        paths = ["secrets/**"]
        [[template]]
        content = '{{{{ secret("prod/db").password }}}}'
        destination = "{file}"
        reload = {{ command = ["true"] }}
        """
    )
    agent.config.write_text(agent.config.read_text().replace("ecdsa-p256", "rsa-2048"))
    process = await agent.start()
    await agent.until(lambda: agent.logged("reloaded"))
    argv = ["curl", "-sf", "--unix-socket", str(socket), "http://localhost/v1/secrets/prod/db"]
    await agent.until(socket.exists)
    for _number in range(20):
        await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True)
    assert resident(process.pid) < LIMIT


async def test_the_cache_costs_what_it_counts(core: CorePeer, agent: AgentProcess) -> None:
    """What many secrets add to the process is what the cache counts for them, also once read again."""
    count, size = 2_000, 4_000
    for number in range(count):
        core.secrets[f"secrets/app/{number}"] = Secret({"value": "x" * size})
    socket = agent.place / "agent.sock"
    agent.configure(
        f'[socket]\npath = "{socket}"\n[[socket.allow]]\nuser = {os.geteuid()}\npaths = ["secrets/**"]\n'
    )
    process = await agent.start()
    await agent.until(lambda: agent.logged("ready"))
    await agent.until(lambda: agent.logged("connected to Core"))
    before = resident(process.pid)
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=2**20)
    for number in range(count):
        writer.write(f"GET /v1/secrets/app/{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert " 200 " in head
        await reader.readexactly(int(head.partition("Content-Length: ")[2].partition("\r\n")[0]))
    writer.close()
    await core.push(wire.PolicyChanged())
    await until(lambda: sum(isinstance(message, wire.Read) for message in core.messages) == 2 * count, 60)
    counted = count * (OVERHEAD + size) // 1024
    assert resident(process.pid) - before < counted + 6 * 1024


def test_the_agent_brings_nothing_of_the_server() -> None:
    """Importing every module of the agent imports neither Ray nor SQLAlchemy nor Core's layers."""
    program = """
import importlib, json, pkgutil, sys, agent
for module in pkgutil.iter_modules(agent.__path__):
    importlib.import_module(f"agent.{module.name}")
print(json.dumps(sorted(sys.modules)))
"""
    argv = [sys.executable, "-c", program]
    printed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    loaded = set(json.loads(printed))
    assert not FORBIDDEN & {name.partition(".")[0] for name in loaded}
    assert not [name for name in loaded if name.startswith(("secrethub.storage", "secrethub.engines"))]
    assert not [name for name in loaded if name.startswith("secrethub.operations")]


def test_help_comes_at_once() -> None:
    """The command line's help needs none of the heavy modules."""
    program = """
import sys, agent.daemon
try:
    agent.daemon.main(["--help"])
finally:
    print(list(sys.modules), file=sys.stderr)
"""
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "SECRETHUB_CORE_URL" in done.stdout
    assert "'asyncio'" not in done.stderr
    assert "'cryptography'" not in done.stderr
