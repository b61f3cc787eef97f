"""``secrethub dev`` with Ray, initialised and unsealed as an operator does it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.demo.core import Core
from cluster.demo.steps import DemoFailed
from tests.e2e.api import Api
from tests.e2e.canaries import Canaries
from tests.e2e.processes import kill_all, until


class Development:
    """A running installation. Its shares and root token exist only here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core = Core(folder, "--uninitialised")
        self.shares: list[str] = []
        self.root_token = ""
        self.canaries = Canaries()

    def begin(self) -> None:
        """Initialise and unseal."""
        self.core.wait()
        with self.api() as api:
            self.shares, self.root_token = api.initialise()
            api.unseal(self.shares)
            until(lambda: api.status() == 200, "unsealed")
        self.core.wait_for_root()
        self._hide()

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
        self.canaries.cluster(url, [base64.b64decode(share) for share in self.shares])
        self.canaries.text("the root token", self.root_token)
        for name in ("cluster.key", "ray-token"):
            text = (state / name).read_text().strip()
            self.canaries.key(name, bytes.fromhex(text), state / name)
            self.canaries.text(name, text, state / name)
        password = unquote(urlsplit(url).password or "")
        places = (self.core.data_dir / "dev.json", run / "node.json", self.folders[1] / "password")
        self.canaries.text("the database's password", password, *places)
