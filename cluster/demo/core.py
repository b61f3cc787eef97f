"""Core as an operator starts it for himself: ``secrethub dev`` as a child process, and its addresses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.demo.processes import Child, command, until
from secrethub.client import Client, ClientSettings
from secrethub.sensitive import Sensitive

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "HOME", "USER", "VIRTUAL_ENV", "SECRETHUB_PG_BIN")


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """What ``dev.json`` says. Without ``/v1``."""

    api: str
    api_tls: str
    agent_url: str
    ca_file: Path | None
    database_url: str = field(repr=False)
    root_token: str | None = field(repr=False)
    """None until somebody initialises."""


class Core:
    """A running ``secrethub dev``.

    Args:
        folder: an existing folder for its data and log.
        options: further options of ``secrethub dev``.
        keep: let it live on when this process ends.
        lock: descriptor of a lock that it holds as long as it lives.
    """

    def __init__(self, folder: Path, *options: str, keep: bool = False, lock: int | None = None) -> None:
        self.data_dir = folder / "core"
        scratch = folder / "tmp"
        scratch.mkdir(mode=0o700)
        self.child = Child(
            "secrethub dev",
            command("dev", "--data-dir", str(self.data_dir), *_free_ports(), *options),
            folder / "core.log",
            environment(TMPDIR=str(scratch)),
            folder,
            keep=keep,
            lock=lock,
        )
        self._file = self.data_dir / "dev.json"

    def wait(self) -> float:
        """Wait until it answers and return the seconds that took.

        Raises:
            DemoFailed: it ended, or not in time.
        """
        return until(self._file.exists, "SecretHub is ready", self.child, seconds=_START_SECONDS, pause=0.05)

    def addresses(self) -> Addresses:
        """Return where it can be reached."""
        found = json.loads(self._file.read_bytes())
        return Addresses(
            api=found["api"],
            api_tls=found["api_tls"],
            agent_url=found["agent_url"],
            ca_file=Path(found["ca_file"]) if found.get("ca_file") else None,
            database_url=found["database_url"],
            root_token=found.get("root_token"),
        )

    def client(self, token: str | None = None) -> Client:
        """Return a client of the loopback address."""
        return Client(
            ClientSettings(
                address=self.addresses().api, token=Sensitive(token) if token else None, attempts=1
            )
        )

    def wait_for_root(self) -> float:
        """Wait until the root certificate is known, soon after the first unseal."""
        return until(lambda: self.addresses().ca_file is not None, "the root certificate", self.child)

    def outside(self) -> list[Path]:
        """What it keeps outside the folder: its database, where root's folder is closed to PostgreSQL."""
        return outside(self.data_dir)

    def stop(self) -> None:
        """Stop it and remove what it keeps outside its folder.

        Raises:
            DemoFailed: it had to be ended by force.
        """
        try:
            self.child.stop(_STOP_SECONDS)
        finally:
            remove_outside(self.data_dir)


def outside(data_dir: Path) -> list[Path]:
    """Return what a ``secrethub dev`` on this folder keeps elsewhere."""
    moved, run = data_dir / "postgres" / "moved", data_dir / "state" / "run-dir"
    found = [Path(moved.read_text().strip())] if moved.exists() else []
    return [*found, run.readlink()] if run.is_symlink() else found


def remove_outside(data_dir: Path) -> None:
    """Remove what a stopped ``secrethub dev`` on this folder keeps elsewhere."""
    from cluster.postgres import EmbeddedPostgres

    places = outside(data_dir)
    EmbeddedPostgres(data_dir / "postgres").remove()
    for place in places:
        shutil.rmtree(place, ignore_errors=True)


def environment(**more: str) -> Mapping[str, str]:
    """Return a small environment for children: nothing of the caller's SecretHub settings reaches them."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    source = str(Path(__file__).resolve().parents[2])
    return {**kept, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1", **more}


def _free_ports() -> list[str]:
    names = ("--port", "--tls-port", "--agent-port", "--serve-port", "--metrics-port")
    return [word for name in names for word in (name, "0")]
