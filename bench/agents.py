"""``./dev bench agents [--count N] [--json]``: connected agents, their memory, and how fast a change is told.

Starts ``secrethub dev --single-process`` and, as a process of its own, N agents with certificates of
their own over real mutual TLS. Reports the memory of the gateway for each of them, how fast they
connect, and for a change of a secret that all of them watch: the time from the write's being
acknowledged until each agent is told, and until each has read the new version again. Agents wait a
random part of ``--jitter`` seconds before they read, as real ones do.

The machine is shared by Core, PostgreSQL and the agents: the agents' own work is in the times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.demo.core import Addresses, Core, environment
from cluster.demo.processes import adopt_orphans, end_rest
from cluster.demo.steps import DemoFailed
from secrethub.client import AsyncClient, Client, ClientSettings
from secrethub.sensitive import Sensitive

_PATH = "secrets/bench/agents"
_READING = {"effect": "allow", "paths": ["secrets/bench/**"], "capabilities": ["read"]}
_ENROLLING = {
    "effect": "allow",
    "paths": ["agents/enroll", "agents/enroll/begin"],
    "capabilities": ["create", "update"],
}
_ENROL_TOGETHER = 8
_SETTLE_SECONDS = 3.0
_ROUND_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Times of many agents, in seconds."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Spread:
        """Summarise."""
        ordered = sorted(times)
        return cls(
            p50=ordered[len(ordered) // 2],
            p99=ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
            max=ordered[-1],
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured.

    Attributes:
        kib_per_agent: growth of the gateway's resident memory divided by the agents.
        connects_per_second: including hello, the admission's record and one watch each.
        sent_away: times an agent was told to come back later.
        told: from the acknowledged write to the agent's hearing of it, over all rounds.
        read_again: from the acknowledged write to the new value's arrival at the agent.
        failed: requests or connections that failed.
    """

    count: int
    jitter: float
    kib_per_agent: float
    gateway_mib: float
    connects_per_second: float
    sent_away: int
    told: Spread
    read_again: Spread
    failed: int


def main(argv: Sequence[str]) -> int:
    """Measure and report; 1 when anything failed or an agent was not told."""
    parser = argparse.ArgumentParser(prog="./dev bench agents")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="agents (2000)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="changes of the secret (3)")
    parser.add_argument("--jitter", type=float, default=0.2, metavar="S", help="spread of the reads (0.2)")
    options = parser.parse_args(argv)
    say = (lambda _text: None) if options.json else print
    say("agents: starting SecretHub")
    try:
        report = _run(options, say)
    except DemoFailed as exc:
        print(exc.message, exc.detail, sep="\n", file=sys.stderr)
        return 1
    print(json.dumps({"bench": "agents", **asdict(report)}, indent=2) if options.json else _table(report))
    return 1 if report.failed else 0


def _run(options: argparse.Namespace, say: Callable[[str], object]) -> Report:
    with _core() as (addresses, pid, folder), _client(addresses) as client:
        say(f"  enrolling {options.count} agents …")
        asyncio.run(_enrol(client, addresses, folder, options.count))
        with _swarm(addresses, folder, options.jitter) as swarm:
            return _measure(client, swarm, pid, options, say)


def _measure(
    client: Client, swarm: Swarm, pid: int, options: argparse.Namespace, say: Callable[[str], object]
) -> Report:
    before = _resident_kib(pid)
    say(f"  connecting {options.count} agents …")
    connected = swarm.ask(do="connect")
    time.sleep(_SETTLE_SECONDS)
    after = _resident_kib(pid)
    told: list[float] = []
    read: list[float] = []
    missing = failed = 0
    for number in range(1, options.rounds + 1):
        say(f"  change {number} of {options.rounds} …")
        client.write(_PATH, {"data": {"password": f"change-{number}"}})
        acknowledged = time.monotonic()
        found = swarm.ask(do="collect", seconds=_ROUND_SECONDS)
        told += [max(0.0, at - acknowledged) for at in found["told"]]
        read += [max(0.0, at - acknowledged) for at in found["read"]]
        missing += max(0, options.count - min(len(found["told"]), len(found["read"])))
        failed = found["failed"]
    return Report(
        count=options.count,
        jitter=options.jitter,
        kib_per_agent=(after - before) / options.count,
        gateway_mib=after / 1024,
        connects_per_second=options.count / connected["seconds"],
        sent_away=connected["sent_away"],
        told=Spread.of(told),
        read_again=Spread.of(read),
        failed=failed + missing,
    )


@contextlib.contextmanager
def _core() -> Iterator[tuple[Addresses, int, Path]]:
    """Start ``secrethub dev --single-process`` in a temporary folder."""
    adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="secrethub-bench-"))
    folder.chmod(0o711)
    core = Core(folder, "--single-process")
    try:
        core.wait()
        yield core.addresses(), core.child.pid, folder
    finally:
        core.child.stop()
        end_rest()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _client(addresses: Addresses) -> Iterator[Client]:
    """A client with the root token, and what agents need: policy, role, secret."""
    settings = ClientSettings(address=addresses.api, token=Sensitive(addresses.root_token or ""))
    with Client(settings) as client:
        policy = {"version": "1", "statements": [_READING, _ENROLLING]}
        client.write("sys/policies/acl/bench", {"policy": policy})
        client.write("auth/approle/role/bench", {"token_policies": ["bench"]})
        client.write(_PATH, {"data": {"password": "first"}})
        yield client


async def _enrol(client: Client, addresses: Addresses, folder: Path, count: int) -> None:
    """Enrol agents with one key, each under its own name; leave what the swarm needs in ``folder``."""
    role_id = (client.read("auth/approle/role/bench/role-id").data or {})["role_id"]
    secret_id = (client.write("auth/approle/role/bench/secret-id").data or {})["secret_id"]
    login = client.write("auth/approle/login", {"role_id": role_id, "secret_id": secret_id}).auth or {}
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(pem)
    numbers = iter(range(count))
    settings = ClientSettings(address=addresses.api, token=Sensitive(str(login["client_token"])))

    async def work(enrolling: AsyncClient) -> None:
        for number in numbers:
            nonce = ((await enrolling.write("agents/enroll/begin", {})).data or {})["nonce"]
            body = {"csr": _request(key, nonce), "name": f"bench-{number}"}
            made = (await enrolling.write("agents/enroll", body)).data or {}
            (folder / f"agent-{number:06}.pem").write_text(made["certificate"] + made["ca_chain"][0])
            if number == 0:
                (folder / "ca.pem").write_text(made["ca_chain"][-1])

    async with AsyncClient(settings) as enrolling, asyncio.TaskGroup() as group:
        for _ in range(_ENROL_TOGETHER):
            group.create_task(work(enrolling))


def _request(key: ec.EllipticCurvePrivateKey, nonce: str) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, nonce.encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class Swarm:
    """The process of the agents."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, **order: Any) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def ask(self, **order: Any) -> Any:
        """Send an order and return its answer."""
        self.tell(**order)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the agents' process has ended")
        return json.loads(line)


@contextlib.contextmanager
def _swarm(addresses: Addresses, folder: Path, jitter: float) -> Iterator[Swarm]:
    """Run the agents' process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench._swarm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(environment()),
    )
    try:
        swarm = Swarm(process)
        swarm.tell(url=addresses.agent_url, folder=str(folder), path=_PATH, jitter=jitter)
        yield swarm
    finally:
        process.kill()
        process.communicate()


def _resident_kib(pid: int) -> int:
    """Return the resident memory of a process, shared pages included."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _table(report: Report) -> str:
    def spread(times: Spread) -> str:
        return f"p50 {times.p50:.3f} s   p99 {times.p99:.3f} s   max {times.max:.3f} s"

    return "\n".join(
        (
            "",
            f"agents connected      {report.count}",
            f"gateway memory each   {report.kib_per_agent:.1f} KiB   (process {report.gateway_mib:.0f} MiB)",
            f"connects a second     {report.connects_per_second:.0f}   (sent away {report.sent_away})",
            f"told of a change      {spread(report.told)}",
            f"read it again         {spread(report.read_again)}   (jitter {report.jitter:g} s)",
            f"failed                {report.failed}",
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
