"""``secrethub dev`` with Ray, started where a stranger has left packages of our names."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.demo.core import Core
from cluster.demo.processes import descendants
from cluster.demo.steps import DemoFailed
from tests.e2e.api import Api
from tests.e2e.canaries import Canaries
from tests.e2e.processes import alive, kill_all, until

_SECRET = "a canary in the store"
STRANGERS = ("serve", "agent", "actors", "secrethub", "cluster")


class Development:
    """A running installation. Its shares and root token exist only here and in its own files."""

    def __init__(self, folder: Path) -> None:
        for name in STRANGERS:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(f"open({str(folder / 'shadowed')!r}, 'w').close()\n")
        self.folder = folder
        self.core = Core(folder, "--allow-network", "127.0.0.1/32")
        self.shares: list[str] = []
        self.root_token = ""
        self.canaries = Canaries()

    def begin(self) -> None:
        """Wait until it has initialised and unsealed itself."""
        self.core.wait()
        told = json.loads((self.core.data_dir / "dev.json").read_text())
        self.shares, self.root_token = told["unseal_keys"], told["root_token"]
        self._hide()

    def again(self) -> Core:
        """Start it on the same data, after its end."""
        shutil.rmtree(self.folder / "tmp")
        # A killed dev could not take it away, and it would be taken for the new one's.
        (self.core.data_dir / "dev.json").unlink(missing_ok=True)
        self.core = Core(self.folder)
        self.core.wait()
        return self.core

    @property
    def url(self) -> str:
        """The plain HTTP door."""
        return self.core.addresses().api

    @property
    def pid(self) -> int:
        """Process id of ``secrethub dev``."""
        return self.core.child.pid

    @property
    def ca_file(self) -> Path:
        """The root certificate."""
        found = self.core.addresses().ca_file
        assert found is not None
        return found

    @property
    def folders(self) -> tuple[Path, ...]:
        """Wherever it keeps files: its own folder, and PostgreSQL's when that lies elsewhere."""
        postgres = json.loads((self.core.data_dir / "dev.json").read_text())["postgres_dir"]
        return (self.folder, Path(postgres))

    def api(self, token: str = "") -> Api:
        """Return the API, with the root token once there is one."""
        return Api(self.url, token or self.root_token)

    def end(self) -> None:
        """Stop it, and whatever a failed stop leaves."""
        try:
            self.core.stop()
        except DemoFailed:
            kill_all(self.pid)
            raise

    def _hide(self) -> None:
        """Remember what must be found nowhere else than in its own file."""
        url = self.core.addresses().database_url
        state, run = self.core.data_dir / "state", self.core.data_dir / "run"
        kept = (self.core.data_dir / "dev.json", state / "unseal.json")
        self.canaries.cluster(url, [base64.b64decode(share) for share in self.shares], *kept)
        self.canaries.text("the root token", self.root_token, *kept)
        for name in ("cluster.key", "ray-token"):
            text = (state / name).read_text().strip()
            self.canaries.key(name, bytes.fromhex(text), state / name)
            self.canaries.text(name, text, state / name)
        password = unquote(urlsplit(url).password or "")
        places = (self.core.data_dir / "dev.json", run / "node.json", self.folders[1] / "password")
        self.canaries.text("the database's password", password, *places)


def ends(core: Core, again: Callable[[], Core]) -> None:
    """Check both ends: killed, PostgreSQL ends cleanly and keeps the data; told, ``dev.json`` goes too."""
    _put(core)
    everybody = {core.child.pid, *descendants(core.child.pid)}
    database = Path(json.loads((core.data_dir / "dev.json").read_text())["postgres_dir"])
    os.kill(core.child.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in everybody), "the end of everything dev had started")
    assert "database system is shut down" in (database / "log").read_text()
    core = again()
    assert _value(core) == _SECRET
    everybody = {core.child.pid, *descendants(core.child.pid)}
    core.child.stop(60.0)
    until(lambda: not any(alive(pid) for pid in everybody), "the end of everything dev had started")
    assert not (core.data_dir / "dev.json").exists()


def _put(core: Core) -> None:
    core.client(core.addresses().root_token).write("secrets/kept", {"data": {"value": _SECRET}})


def _value(core: Core) -> object:
    return core.client(core.addresses().root_token).read("secrets/kept").data["data"]["value"]
