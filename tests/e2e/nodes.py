"""Two nodes of one cluster on one machine: a head and a worker, each a ``secrethub server``."""

from __future__ import annotations

import base64
import json
import random
import secrets
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cluster.demo.core import environment
from cluster.demo.processes import Child, command
from tests.e2e.api import Api
from tests.e2e.canaries import Canaries
from tests.e2e.processes import kill_all, until

HEAD = "n1"
WORKER = "n2"
_START_SECONDS = 150.0
_SETTINGS = """\
role = {role}
node = {node}
state_dir = {state}
database_url_file = {database}
cluster_key_file = {key}
[http]
port = {http}
[tls]
host = "127.0.0.1"
port = {tls}
[agents]
host = "127.0.0.1"
port = {agents}
urls = {urls}
[serve]
port = {serve}
[metrics]
port = {metrics}
[ray]
token_file = {token}
"""
_HEAD = """\
port = {ray}
dashboard_port = {dashboard}
"""
_WORKER = """\
address = "127.0.0.1:{ray}"
"""
_DOORS = ("http", "tls", "agents", "serve", "metrics")


class Node:
    """One ``secrethub server`` and everything below it."""

    def __init__(self, name: str, config: Path, doors: dict[str, int]) -> None:
        self.name = name
        self.log = config.with_name(f"{name}.log")
        self.api = f"http://127.0.0.1:{doors['http']}"
        self.api_tls = f"https://127.0.0.1:{doors['tls']}"
        self.ingress = f"http://127.0.0.1:{doors['serve']}"
        self._config = config
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Process id of the ``secrethub server``."""
        assert self._child is not None, f"{self.name} does not run"
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it was started and neither killed nor stopped."""
        return self._child is not None

    def start(self) -> None:
        """Start it and return at once."""
        argv = command("server", "--config", str(self._config))
        self._child = Child(
            f"node {self.name}", argv, self.log, environment(), self._config.parent, keep=False
        )

    def wait(self, wanted: int = 200) -> float:
        """Wait until its door says what is wanted and return how many seconds that took."""
        with Api(self.api) as api:

            def said() -> bool:
                assert self._child is not None
                self._child.check()
                return api.status() == wanted

            return until(said, f"{self.name} answers {wanted}", seconds=_START_SECONDS)

    def kill(self) -> int:
        """Kill every process of the node with SIGKILL at the same moment; return how many there were."""
        count = kill_all(self.pid)
        assert self._child is not None
        self._child.stop(1.0)
        self._child = None
        return count

    def stop(self) -> None:
        """Stop it in good order, if it runs."""
        child, self._child = self._child, None
        if child is None:
            return
        try:
            child.stop(60.0)
        finally:
            kill_all(child.pid)

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


class TwoNodes:
    """The cluster. What was killed is started again by :meth:`make_whole`."""

    def __init__(self, folder: Path, database_url: str, more: str = "") -> None:
        """Write the nodes' settings, with ``more`` at their end; nothing is started."""
        self.folder = folder
        self.shares: list[str] = []
        self.root_token = ""
        self._folder = folder
        ports = _free_ports(2 * len(_DOORS) + 2)
        common = {
            "database": _private(folder / "database-url", database_url),
            "key": _private(folder / "cluster.key", secrets.token_hex(32)),
            "token": _private(folder / "ray-token", secrets.token_hex(32)),
        }
        ray, dashboard = ports.pop(), ports.pop()
        doors = {name: {door: ports.pop() for door in _DOORS} for name in (HEAD, WORKER)}
        nodes = {}
        for name, own_ray in ((HEAD, _HEAD), (WORKER, _WORKER)):
            own, other = name, WORKER if name == HEAD else HEAD
            words = common | {
                "role": "head" if name == HEAD else "worker",
                "node": name,
                "state": str(folder / name),
                # Agents are told of both: this node's door first.
                "urls": [f"wss://127.0.0.1:{doors[each]['agents']}" for each in (own, other)],
            }
            quoted = {key: json.dumps(word) for key, word in words.items()}
            config = folder / f"{name}.toml"
            text = (_SETTINGS + own_ray).format(**quoted, **doors[name], ray=ray, dashboard=dashboard)
            config.write_text(text + more)
            nodes[name] = Node(name, config, doors[name])
        self.head = nodes[HEAD]
        self.worker = nodes[WORKER]

    @property
    def ca_file(self) -> Path:
        """The root certificate, written once the cluster is unsealed."""
        return self.folder / "ca.pem"

    def canaries(self, database_url: str) -> Canaries:
        """Return what must be found nowhere else than in its own file."""
        made = Canaries()
        made.cluster(database_url, [base64.b64decode(share) for share in self.shares])
        made.text("the root token", self.root_token)
        for name in ("cluster.key", "ray-token"):
            file = self.folder / name
            made.key(name, bytes.fromhex(file.read_text()), file)
            made.text(name, file.read_text().strip(), file)
        places = [self.folder / "database-url"]
        places += [self.folder / node / "run" / "node.json" for node in (HEAD, WORKER)]
        made.text("the database's password", unquote(urlsplit(database_url).password or ""), *places)
        return made

    def other(self, node: Node) -> Node:
        """Return the node that ``node`` is not."""
        return self.worker if node is self.head else self.head

    def begin(self) -> None:
        """Start both nodes, initialise, and unseal through the head alone."""
        # Ray's head must be there before a worker can join it.
        for node in (self.head, self.worker):
            node.start()
            node.wait(501)
        with Api(self.head.api) as api:
            self.shares, self.root_token = api.initialise()
            api.unseal(self.shares)
        for node in (self.head, self.worker):
            node.wait()
        with Api(self.head.api, self.root_token) as api:
            chain = api.call("GET", "pki/cert/ca_chain")["data"]["certificate"]
        end = "-----END CERTIFICATE-----"
        self.ca_file.write_text([pem.strip() + f"\n{end}\n" for pem in chain.split(end) if pem.strip()][-1])

    def make_whole(self) -> None:
        """Start what does not run, and wait until both serve; no share is given."""
        for node in (self.head, self.worker):
            if not node.running:
                node.start()
        for node in (self.head, self.worker):
            node.wait()

    def end(self) -> None:
        """Stop both, whatever state they are in."""
        try:
            self.worker.stop()
        finally:
            self.head.stop()


def _private(path: Path, text: str) -> str:
    path.touch(0o600)
    path.write_text(text + "\n")
    return str(path)


def _free_ports(count: int) -> list[int]:
    """Choose ports below those that the kernel gives out by itself, so that nobody gets them meanwhile."""
    chosen: set[int] = set()
    while len(chosen) < count:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        chosen.add(port)
    return sorted(chosen)
