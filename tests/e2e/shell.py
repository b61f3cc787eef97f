"""``secrethub`` commands as a shell runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.demo.processes import command
from tests.gateway.forking import run_command


@dataclass(frozen=True)
class Shell:
    """Runs ``secrethub`` with an environment of its own."""

    environment: dict[str, str]
    folder: Path

    def __call__(
        self,
        *arguments: str,
        stdin: str = "",
        code: int = 0,
        before: Callable[[], None] | None = None,
        **variables: str,
    ) -> str:
        """Run a command, expect its exit code, return what it printed; errors after output if it failed.

        Args:
            arguments: without ``secrethub``.
            stdin: what it can read.
            code: the exit code it must have.
            before: runs in the new process first.
            variables: added to its environment.
        """
        done = self.run(*arguments, stdin=stdin, before=before, **variables)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def run(
        self, *arguments: str, stdin: str = "", before: Callable[[], None] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and return all that came of it."""
        whole = {**self.environment, **variables}
        if before is None:
            return run_command(arguments, whole, stdin, self.folder)
        return subprocess.run(
            command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            env=whole,
            cwd=self.folder,
            check=False,
            timeout=60,
            preexec_fn=before,
        )

    def json(self, *arguments: str, stdin: str = "", code: int = 0) -> object:
        """Run a command with ``--format json`` and return what it printed."""
        return json.loads(self(*arguments, "--format", "json", stdin=stdin, code=code))
