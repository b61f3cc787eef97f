"""``secrethub dev`` with Ray as a process: who can reach it, what it starts, what it leaves."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from pathlib import Path

import httpx2
import pytest

from cluster.demo.core import Core
from cluster.demo.processes import descendants
from tests.e2e.development import STRANGERS, Development, ends

pytestmark = pytest.mark.timeout(400)


def test_only_this_machine_reaches_it(development: Development) -> None:
    """Every socket that dev and Ray listen on is on loopback, and Ray does nothing without its token."""
    core = development.core
    listening = listeners({core.child.pid, *descendants(core.child.pid)})
    assert listening
    assert not {address for address in listening if not address.startswith(("127.", "::1", "::ffff:127."))}
    plan = json.loads((core.data_dir / "run" / "ray.json").read_text()) if short(core) else ray_plan(core)
    for port, path in ((plan["dashboard_port"], "/api/jobs/"), (plan["agent_port"], "/api/job_agent/jobs/")):
        answer = httpx2.post(f"http://127.0.0.1:{port}{path}", json={"entrypoint": "id"}, trust_env=False)
        assert answer.status_code in {401, 403}


def test_a_stranger_s_folder_shadows_nothing(development: Development) -> None:
    """Packages of our names in the working directory are not imported by any process that dev starts."""
    core = development.core
    there = core.data_dir.parent
    assert all((there / name / "__init__.py").exists() for name in STRANGERS)
    assert not (there / "shadowed").exists()


def test_no_secret_is_in_any_argument(development: Development) -> None:
    """No process that dev starts has a token, key, share or database password in its arguments."""
    core = development.core
    told = json.loads((core.data_dir / "dev.json").read_text())
    password = re.search(r":([^:@/]+)@", told["database_url"])
    assert password is not None
    secrets = [told["root_token"], *told["unseal_keys"], password[1]]
    secrets.append((core.data_dir / "state" / "cluster.key").read_text().strip())
    secrets.append((core.data_dir / "state" / "ray-token").read_text().strip())
    lines = descendants(core.child.pid).values()
    assert lines
    assert not [line for line in lines for secret in secrets if secret in line]


def test_no_process_stands_back(development: Development) -> None:
    """Ray's workers, the gateway among them, have the priority of what started them."""
    core = development.core
    workers = [pid for pid, line in descendants(core.child.pid).items() if "ray::" in line]
    assert workers
    ours = os.getpriority(os.PRIO_PROCESS, core.child.pid)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in workers} == {ours}


def test_what_holds_keys_leaves_no_core_dump(development: Development) -> None:
    """Nobody finds a key in what a crash of the gateway, of the seal's actors or of supervisors leaves."""
    core = development.core
    kinds = ("ServeReplica:secrethub:", "SealState", "KeyHolder", "NodeSupervisor", "Supervisor")
    ours = {
        pid: line
        for pid, line in descendants(core.child.pid).items()
        if line.startswith(tuple(f"ray::{kind}" for kind in kinds))
    }
    assert len(ours) >= len(kinds)
    for pid, line in ours.items():
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), line
        # Owned by root: the kernel's sign that nobody of the same user may attach to it, either.
        assert Path(f"/proc/{pid}/mem").stat().st_uid == 0, line


def test_with_ray_data_is_kept_and_nothing_else(development: Development) -> None:
    """After SIGKILL no process is left and a new start has the data; after SIGTERM nothing is left either."""
    ends(development.core, development.again)


def short(core: Core) -> bool:
    """Whether the run directory lies below the data directory."""
    return (core.data_dir / "run" / "ray.json").exists()


def ray_plan(core: Core) -> dict[str, int]:
    """How Ray was started, where the run directory is elsewhere."""
    return dict(json.loads(((core.data_dir / "state" / "run-dir").readlink() / "ray.json").read_text()))


def listeners(pids: set[int]) -> set[str]:
    """Addresses that these processes listen on, TCP over IPv4 and IPv6."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(_address(fields[1].partition(":")[0]))
    return found


def _address(text: str) -> str:
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
