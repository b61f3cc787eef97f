"""An agent in its own process, as the tests drive it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from core_peer import CorePeer, until

ROOT = Path(__file__).parents[2]


class AgentProcess:
    """An agent in its own process, with its settings in ``place``."""

    def __init__(self, core: CorePeer, place: Path) -> None:
        self.core = core
        self.place = place
        self.state = place / "state"
        self.config = place / "agent.toml"
        self.secret_id_file = place / "secret-id"
        self.log_file = place / "agent.log"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SECRETHUB_")},
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(place / "no-runtime-dir"),
        }
        self.process: asyncio.subprocess.Process | None = None

    def configure(self, text: str = "", **core: str) -> None:
        """Write the settings: how to reach Core, and then ``text``."""
        self.secret_id_file.write_text(self.core.secret_id)
        self.secret_id_file.chmod(0o600)
        trust = core or {"ca_sha256": self.core.authorities.root_sha256}
        lines = [f"{key} = {json.dumps(value)}" for key, value in trust.items()]
        self.config.write_text(
            "\n".join(
                [
                    "[agent]",
                    'name = "web-1"',
                    "[core]",
                    f'url = "{self.core.https_url}"',
                    *lines,
                    "[auth]",
                    f'role_id = "{self.core.role_id}"',
                    f'secret_id_file = "{self.secret_id_file}"',
                    'key_type = "ecdsa-p256"',
                    "[state]",
                    f'dir = "{self.state}"',
                    text,
                ]
            )
        )

    async def start(self, **environment: str) -> asyncio.subprocess.Process:
        """Start it."""
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "agent.daemon",
                "run",
                "--config",
                str(self.config),
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
            )
        return self.process

    async def kill(self) -> None:
        """End it at once, wherever it is."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            return await self.process.wait()

    def log(self) -> list[Mapping[str, Any]]:
        """Return what it logged, over all starts."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, message: str) -> bool:
        """Tell whether it logged a message."""
        return any(message in line["message"] for line in self.log())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; fail with the log when the agent has ended or time is up."""
        try:
            await until(lambda: condition() or self.ended)
            if condition():
                return
        except TimeoutError:
            pass
        pytest.fail(f"it never came to pass; the agent's log:\n{self.log_file.read_text()}")

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process is not None and self.process.returncode is not None
