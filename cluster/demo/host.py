"""A host with an application on it, and the agent that keeps the application's file.

The application is a small program of its own: it reads its settings file at start and again at every
SIGHUP, as daemons do, and notes what it read. The agent knows of it only its pid file.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.demo.core import Addresses, environment
from cluster.demo.processes import Child, command, until
from cluster.demo.steps import DemoFailed

SECRET = "prod/db"  # noqa: S105 - a path
_APPLICATION = """
import os, pathlib, signal, sys

settings, log, pid_file = map(pathlib.Path, sys.argv[1:])

def load(*_):
    with log.open("a") as file:
        file.write("read " + repr(settings.read_text()) + "\\n")

signal.signal(signal.SIGHUP, load)
pid_file.write_text(f"{os.getpid()}\\n")
while True:
    signal.pause()
"""
_AGENT = """\
[core]
url = {url}
ca_file = {ca_file}

[auth]
role_id = {role_id}
secret_id_file = {secret_id_file}

[state]
dir = {state}

[cache]
ttl = "5m"
disk = false

[socket]
path = {socket}
mode = "0600"

[[socket.allow]]
user = {user}
paths = ["secrets/prod/*"]

[[template]]
content = {template}
destination = {destination}
mode = "0400"
reload = {{ signal = "HUP", pid_file = {pid_file} }}
"""
_TEMPLATE = '{% set db = secret("prod/db") %}DB_USER={{ db.user }}\nDB_PASSWORD={{ db.password }}\n'


class Host:
    """A folder that stands for a host.

    Args:
        folder: an existing folder, whose path is short enough for a Unix socket.
        keep: let its processes live on when the demo ends.
        lock: descriptor of a lock that they hold as long as they live.
    """

    def __init__(self, folder: Path, *, keep: bool, lock: int) -> None:
        self._folder = folder
        self._keep = keep
        self._lock = lock
        self.file = folder / "app.env"
        self.socket = folder / "agent.sock"
        self.secret_id_file = folder / "secret-id"
        self._noted = folder / "app.log"
        self._pid_file = folder / "app.pid"
        self._children: list[Child] = []

    def start_application(self) -> None:
        """Start the application, before it has any settings."""
        program = self._folder / "app.py"
        program.write_text(_APPLICATION)
        argv = [sys.executable, "-I", str(program), str(self.file), str(self._noted), str(self._pid_file)]
        child = self._start("the application", argv, "app.out")
        until(
            lambda: bool(self._pid_file.exists() and self._pid_file.read_text()),
            "the application's start",
            child,
        )

    def start_agent(self, core: Addresses, role_id: str) -> None:
        """Configure and start the agent; its SecretID is in :attr:`secret_id_file`."""
        words = {
            "url": core.api_tls,
            "ca_file": str(core.ca_file),
            "role_id": role_id,
            "secret_id_file": str(self.secret_id_file),
            "state": str(self._folder / "state"),
            "socket": str(self.socket),
            "user": pwd.getpwuid(os.geteuid()).pw_name,
            "template": _TEMPLATE,
            "destination": str(self.file),
            "pid_file": str(self._pid_file),
        }
        config = self._folder / "agent.toml"
        # A JSON string is a basic string of TOML.
        config.write_text(_AGENT.format(**{name: json.dumps(word) for name, word in words.items()}))
        self._start("the agent", command("agent", "run", "--config", str(config)), "agent.log")

    def wait_for(self, password: str, *, seconds: float = 20.0) -> float:
        """Wait until the file holds a password; return the seconds that took."""
        return until(
            lambda: f"={password}\n" in self.content(),
            "the file",
            *self._children,
            seconds=seconds,
            pause=0.002,
        )

    def wait_for_reload(self, password: str) -> float:
        """Wait until the application has read a password; return the seconds that took."""
        return until(
            lambda: self._noted.exists() and f"={password}\\n" in self._noted.read_text(),
            "the application's reload",
            *self._children,
            pause=0.002,
        )

    def content(self) -> str:
        """What the file holds now; empty before it exists."""
        try:
            return self.file.read_text()
        except FileNotFoundError:
            return ""

    def mode(self) -> str:
        """The file's mode and owner, as people write them."""
        found = self.file.stat()
        return f"{stat.S_IMODE(found.st_mode):04o} {pwd.getpwuid(found.st_uid).pw_name}"

    def reloads(self) -> int:
        """How often the application has read its file."""
        return len(self._noted.read_text().splitlines())

    def read_through_socket(self) -> tuple[str, str]:
        """Read the secret as an application would; return the command and the password it brought.

        Raises:
            DemoFailed: the agent did not answer with the secret.
        """
        url = f"http://localhost/v1/secrets/{SECRET}"
        argv = [
            shutil.which("curl") or "curl",
            "-sS",
            "--fail-with-body",
            "--unix-socket",
            str(self.socket),
            url,
        ]
        if shutil.which("curl") is None:
            answer, shown = self._without_curl(), f"(no curl here; the HTTP client) {url}"
        else:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
            if done.returncode:
                raise DemoFailed(f"curl: {done.stderr.strip()} {done.stdout.strip()}")
            answer, shown = json.loads(done.stdout), f"curl --unix-socket {self.socket} {url}"
        return shown, str(answer["data"]["data"]["password"])

    def stop(self) -> None:
        """Stop the agent and the application."""
        while self._children:
            self._children.pop().stop()

    def pids(self) -> list[int]:
        """Process ids of what runs here."""
        return [child.pid for child in self._children]

    def _without_curl(self) -> dict[str, Any]:
        from secrethub.client import Client, ClientSettings

        with Client(ClientSettings(address=f"unix://{self.socket}")) as client:
            return {"data": client.read(f"secrets/{SECRET}").data}

    def _start(self, name: str, argv: list[str], log: str) -> Child:
        child = Child(
            *(name, argv, self._folder / log, environment(), self._folder), keep=self._keep, lock=self._lock
        )
        self._children.append(child)
        return child
