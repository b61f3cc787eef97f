"""The command line against a real server, as a shell runs it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Node
from tests.gateway.forking import run_command


class Cli:
    """Runs commands with the node's address and, by default, its root token."""

    def __init__(self, node: Node, home: Path) -> None:
        assert node.settings.http is not None
        self.node = node
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("SECRETHUB", "VAULT"))
            },
            "SECRETHUB_ADDR": f"http://127.0.0.1:{node.settings.http.port}",
            "SECRETHUB_TOKEN": node.root,
            "HOME": str(home),
        }

    async def __call__(self, *words: str, stdin: str = "", code: int = 0, **variables: str) -> str:
        """Run a command, expect its exit code, return what it printed (errors when it failed)."""
        done = await asyncio.to_thread(run_command, words, {**self.environment, **variables}, stdin)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    async def noted(self, *words: str) -> str:
        """Run a command that succeeds, and return what it said beside its answer."""
        done = await asyncio.to_thread(run_command, words, self.environment, "")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    async def json(self, *words: str, **how: Any) -> Any:
        """Run a command and return its answer."""
        return json.loads(await self(*words, "--format", "json", **how))


@pytest.fixture
def cli(node: Node, tmp_path: Path) -> Cli:
    """The command line for the node."""
    return Cli(node, tmp_path)
