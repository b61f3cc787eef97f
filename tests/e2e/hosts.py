"""A host with a real agent on it that keeps one file."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from cluster.demo.core import environment
from cluster.demo.processes import Child
from tests.e2e.processes import kill_all, until

_SETTINGS = """\
[agent]
name = {name}
[core]
url = {urls}
ca_file = {ca_file}
[auth]
role_id = {role_id}
secret_id_file = {secret_id_file}
key_type = "ecdsa-p256"
[state]
dir = {state}
[socket]
path = {socket}
mode = "0600"
[[socket.allow]]
user = {user}
paths = {paths}
[[template]]
content = {template}
destination = {destination}
"""


class Host:
    """A folder that stands for a host; its agent is a process of its own, as on any host."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.name = name
        self.file = folder / "app.env"
        self.state = folder / "state"
        self._socket = folder / "agent.sock"
        self._child: Child | None = None

    def enrol(self, urls: Sequence[str], ca_file: Path, machine: tuple[str, str], secret: str) -> None:
        """Configure the agent to deliver ``secret`` (``value=…``), and start it for the first time."""
        role_id, secret_id = machine
        secret_id_file = self.folder / "secret-id"
        secret_id_file.touch(0o600)
        secret_id_file.write_text(secret_id)
        words = {
            "name": self.name,
            "urls": list(urls),
            "ca_file": str(ca_file),
            "role_id": role_id,
            "secret_id_file": str(secret_id_file),
            "state": str(self.state),
            "socket": str(self._socket),
            "user": pwd.getpwuid(os.geteuid()).pw_name,
            "paths": ["secrets/**"],
            "template": f'value={{{{ secret("{secret}").value }}}}\n',
            "destination": str(self.file),
        }
        # JSON's strings and lists of strings are TOML's too.
        text = _SETTINGS.format(**{key: json.dumps(word) for key, word in words.items()})
        (self.folder / "agent.toml").write_text(text)
        self.start()

    def start(self) -> None:
        """Start the agent, as a service manager does after each of its ends."""
        from cluster.demo.processes import command

        argv = command("agent", "run", "--config", str(self.folder / "agent.toml"))
        # Its cache's key belongs in a tmpfs; the folder of the test is none, and is gone afterwards.
        run = self.folder / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        self._child = Child(
            f"agent {self.name}",
            argv,
            self.folder / "agent.log",
            environment(XDG_RUNTIME_DIR=str(run)),
            self.folder,
            keep=False,
        )

    @property
    def pid(self) -> int:
        """The agent's process id."""
        assert self._child is not None
        return self._child.pid

    def kill(self) -> None:
        """End the agent without any warning."""
        kill_all(self.pid)
        self._reap()

    def stop(self) -> None:
        """End the agent in good order, if it runs."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def gateway(self) -> str | None:
        """Return the node that the agent is connected to, if it is."""
        try:
            with self._client() as client:
                found = client.get("/v1/agent/status").json()["data"]["gateway"]
        except (httpx2.TransportError, KeyError):
            return None
        return None if found is None else str(found)

    def settle_at(self, node: str, *, tries: int = 40) -> None:
        """Start the agent again until it has chosen ``node``: it picks one of its gateways at random."""
        for _ in range(tries):
            until(lambda: self.gateway() is not None, f"agent {self.name} is connected")
            if self.gateway() == node:
                return
            self.stop()
            self.start()
        raise AssertionError(f"the agent never chose {node} in {tries} tries")

    def content(self) -> str:
        """What the file holds; empty before there is one."""
        try:
            return self.file.read_text()
        except FileNotFoundError:
            return ""

    def wait_for(self, value: object, *, seconds: float = 60.0) -> float:
        """Wait until the file holds a value and return the seconds that took."""
        wanted = f"value={value}\n"
        what = f"{wanted.strip()} in the file of {self.name}"
        return until(lambda: self.content() == wanted, what, seconds=seconds, pause=0.01)

    def read(self, path: str) -> dict[str, Any]:
        """Read a secret through the agent's socket."""
        with self._client() as client:
            answer = client.get(f"/v1/secrets/{path}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"]["data"])

    def log(self) -> str:
        """What the agent has logged so far."""
        return (self.folder / "agent.log").read_text(errors="replace")

    def _client(self) -> httpx2.Client:
        transport = httpx2.HTTPTransport(uds=str(self._socket))
        return httpx2.Client(transport=transport, base_url="http://localhost", timeout=10.0)

    def _reap(self) -> None:
        assert self._child is not None
        self._child.stop(1.0)
        self._child = None
