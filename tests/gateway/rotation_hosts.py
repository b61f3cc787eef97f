"""A host with a real agent, for tests of rotations on a node of one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from secrethub.pki.chain import from_pem, to_pem
from tests.gateway.behind import sql, until
from tests.gateway.conftest import Caller, native
from tests.gateway.kv import ok

ROOT = Path(__file__).parents[2]


class RotationHost:
    """A host whose agent keeps ``app.env`` from a template."""

    def __init__(self, node: Caller, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.file = folder / "app.env"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the agent."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SECRETHUB_")}
        with (self.folder / "agent.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from agent.daemon import main; main()",
                "run",
                "--config",
                str(self.folder / "agent.toml"),
                env={**environment, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(self.folder / "run")},
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """End the agent without any warning."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def holds(self, content: str) -> None:
        """Wait until the file has a content."""

        async def look() -> bool:
            return self.file.exists() and self.file.read_text() == content

        try:
            await until(look)
        except TimeoutError:
            raise AssertionError((self.folder / "agent.log").read_text()[-3000:]) from None


@contextlib.asynccontextmanager
async def enrolled_host(
    node: Caller,
    folder: Path,
    template: str,
    more: str = "",
    name: str = "host-1",
    paths: tuple[str, ...] = ("secrets/app/**",),
    granted: tuple[str, ...] = (),
) -> AsyncIterator[RotationHost]:
    """Enrol a host whose agent may read some paths and keeps a file.

    Args:
        node: its Core.
        folder: of the host.
        template: of the file.
        more: further lines of the file's settings.
        name: of the agent.
        paths: what it may read.
        granted: where local applications may have credentials made.
    """
    folder.mkdir(exist_ok=True)
    policy: Any = native(*paths)
    policy["statements"].append(
        {"effect": "allow", "paths": ["agents/enroll", "agents/enroll/begin"], "capabilities": ["update"]}
    )
    await ok(node, "PUT", "sys/policies/acl/host", {"policy": policy})
    await ok(node, "POST", "auth/approle/role/host", {"token_policies": ["host"]})
    role_id = (await ok(node, "GET", "auth/approle/role/host/role-id"))["role_id"]
    secret_id = (await ok(node, "POST", "auth/approle/role/host/secret-id"))["secret_id"]
    host = RotationHost(node, folder)
    (folder / "run").mkdir(mode=0o700)
    (folder / "secret-id").touch(mode=0o600)
    (folder / "secret-id").write_text(secret_id)
    chain = from_pem((await ok(node, "GET", "pki/cert/ca_chain"))["certificate"])
    (folder / "ca.pem").write_text(to_pem(chain[-1]))
    assert node.settings.tls is not None
    words = {
        "core": {"url": f"https://127.0.0.1:{node.settings.tls.port}", "ca_file": str(folder / "ca.pem")},
        "auth": {"role_id": role_id, "secret_id_file": str(folder / "secret-id"), "key_type": "ecdsa-p256"},
        "state": {"dir": str(folder / "state")},
        "socket": {"path": str(folder / "agent.sock"), "mode": "0600"},
    }
    lines = [f"[agent]\nname = {json.dumps(name)}"]
    for section, fields in words.items():
        # JSON's strings are TOML's, too.
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in fields.items())]
    user = json.dumps(pwd.getpwuid(os.geteuid()).pw_name)
    lines += ["[[socket.allow]]", f"user = {user}", 'paths = ["secrets/**"]']
    lines += [f"credentials = {json.dumps(granted)}"] if granted else []
    lines += [
        "[[template]]",
        f"content = {json.dumps(template)}",
        f"destination = {json.dumps(str(host.file))}",
        more,
    ]
    (folder / "agent.toml").write_text("\n".join(lines) + "\n")
    await host.start()
    try:
        yield host
    finally:
        await host.kill()


async def watching(node: Caller, path: str = "app/db", agents: int = 1) -> None:
    """Wait until it is known that agents use a secret."""

    async def look() -> bool:
        rows = await sql(
            node.settings.database_url, "SELECT 1 FROM agent_watches WHERE key LIKE $1", f"%/{path}"
        )
        return len(rows) == agents

    await until(look)


@contextlib.asynccontextmanager
async def application(file: Path, url: str) -> AsyncIterator[dict[str, Any]]:
    """Run an application that knows its database user from a file; afterwards there is what it told."""
    told: dict[str, Any] = {}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.gateway.database_app", str(file), url),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield told
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
        told.update(json.loads(output))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
