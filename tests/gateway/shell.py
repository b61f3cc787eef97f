"""The command line against a real server, as a shell runs it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Node


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
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "cluster.cli.main", *words],
            env={**self.environment, **variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    async def json(self, *words: str, **how: Any) -> Any:
        """Run a command and return its answer."""
        return json.loads(await self(*words, "--format", "json", **how))


@pytest.fixture
def cli(node: Node, tmp_path: Path) -> Cli:
    """The command line for the node."""
    return Cli(node, tmp_path)
