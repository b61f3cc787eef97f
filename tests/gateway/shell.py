"""The command line against a real server, as a shell runs it."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.conftest import Node
from tests.gateway.forking import FORKING, command


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
        ended, out, err = await asyncio.to_thread(_run, words, {**self.environment, **variables}, stdin)
        assert ended == code, out + err
        assert "Traceback" not in err
        return out if code == 0 else err

    async def noted(self, *words: str) -> str:
        """Run a command that succeeds, and return what it said beside its answer."""
        ended, out, err = await asyncio.to_thread(_run, words, self.environment, "")
        assert ended == 0, out + err
        return err

    async def json(self, *words: str, **how: Any) -> Any:
        """Run a command and return its answer."""
        return json.loads(await self(*words, "--format", "json", **how))


def _run(words: Sequence[str], environment: Mapping[str, str], stdin: str) -> tuple[int | None, str, str]:
    """Run a command; return its exit code and what it printed on its two outputs."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("in", "out", "err")]
        for file, text in zip(files, (stdin, "", ""), strict=True):
            file.write_text(text, "utf-8")
        child = FORKING.Process(target=command, args=(words, environment, folder))
        child.start()
        child.join()
        return child.exitcode, files[1].read_text("utf-8"), files[2].read_text("utf-8")


@pytest.fixture
def cli(node: Node, tmp_path: Path) -> Cli:
    """The command line for the node."""
    return Cli(node, tmp_path)
