"""The Ray node of this process: its processes, the connection to it, and their end.

The node's processes run below a warden, which ends every one of them when this process ends, however
it does. This process connects to its own node, not to the head's, so that it outlives the head.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx2
import msgspec

from actors.handles.remote import off_loop
from cluster.children.child import Child
from cluster.folders import fresh_folder
from cluster.ray_plan import RayPlan, adopt, environment
from secrethub.errors import Misconfigured, Unavailable

_log = logging.getLogger(__name__)

NAMESPACE = "secrethub"
_WARDEN = Path(__file__).with_name("children") / "warden.py"
_START_PATIENCE = 90.0
"""Seconds until a node that does not come up is given up."""
_DISCONNECT_PATIENCE = 5.0
"""Seconds for Ray to close this process's connection."""
_STOP_PATIENCE = 20.0
"""Seconds for the warden to end everything; it gives Ray eight of them."""


class RayNode:
    """One Ray node, started and ended by this process."""

    def __init__(self, plan: RayPlan, run_dir: Path, *, keep_open: Sequence[int] = ()) -> None:
        """Describe the node; nothing runs before :meth:`start`.

        Args:
            plan: how to start it.
            run_dir: private folder of this SecretHub node.
            keep_open: descriptors of locks that stay taken until the last process has ended.
        """
        self._plan = plan
        self._run_dir = run_dir
        self._keep_open = tuple(keep_open)
        self._child: Child | None = None
        self.ray_id = ""
        """Ray's id of the node, once started."""

    async def start(self) -> None:
        """Start the node's processes and check that strangers cannot use them.

        Raises:
            Unavailable: they did not come up; the message ends with their log.
            Misconfigured: Ray answers requests without a token.
        """
        plan_file, ready = self._run_dir / "ray.json", self._run_dir / "ray-ready"
        ready.unlink(missing_ok=True)
        plan_file.unlink(missing_ok=True)
        descriptor = os.open(plan_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self._plan))
        log = self._run_dir / "ray.log"
        child = self._child = Child(
            [
                *(sys.executable, "-I", "-S", str(_WARDEN)),
                *(sys.executable, "-P", "-m", "cluster.ray_start", str(plan_file), str(ready)),
            ],
            environment=environment(self._plan),
            # Ray puts the working directory of its processes on their import path.
            directory=fresh_folder(self._run_dir / "empty"),
            log=log,
            death_signal=signal.SIGHUP,
            keep_open=self._keep_open,
        )
        await asyncio.to_thread(child.start)
        try:
            async with asyncio.timeout(_START_PATIENCE):
                while not ready.exists() or not ready.read_text("ascii"):
                    if await child.wait(0.05):
                        raise Unavailable(f"Ray did not start: {_tail(log)}")
                self.ray_id = ready.read_text("ascii")
                await self._check_closed()
        except TimeoutError:
            raise Unavailable(f"Ray did not start within {_START_PATIENCE:.0f} s: {_tail(log)}") from None

    def connect(self) -> None:
        """Join the cluster as a driver of this node. Call in the main thread, once."""
        adopt(self._plan)
        # The driver's working directory becomes the first entry of its workers' import path.
        os.chdir(self._run_dir / "empty")
        import ray

        ray.init(
            address=self._plan.gcs,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=self._plan.temp_dir,
        )
        # Importing it sets its level; from here on the operator hears of what goes wrong, no more.
        import ray.serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)

    @property
    def running(self) -> bool:
        """Whether the node's processes run."""
        return self._child is not None and self._child.running

    async def ended(self) -> str:
        """Wait until the node has failed and return the end of its log."""
        if self._child is None:
            raise RuntimeError("the Ray node was not started")
        await self._child.wait()
        return _tail(self._run_dir / "ray.log")

    async def stop(self) -> None:
        """End the connection and every process of the node. Safe to call twice."""
        child, self._child = self._child, None
        if child is None:
            return
        await _disconnect()
        # SIGTERM lets Ray tell the cluster that the node leaves; SIGHUP ends all of it at once.
        await child.stop((signal.SIGTERM, _STOP_PATIENCE), (signal.SIGHUP, _STOP_PATIENCE))

    async def _check_closed(self) -> None:
        """Refuse a Ray whose HTTP doors, through which anybody could run code, need no token."""
        doors = [(self._plan.agent_port, "/api/job_agent/jobs/")]
        if self._plan.head:
            doors.append((self._plan.dashboard_port, "/api/jobs/"))
        async with httpx2.AsyncClient(trust_env=False, timeout=10.0) as client:
            for port, path in doors:
                status = await _first_answer(client, f"http://127.0.0.1:{port}{path}")
                if status not in {401, 403}:
                    raise Misconfigured(
                        f"Ray on port {port} answers {status} without a token: refusing to run on it"
                    )


async def _disconnect() -> None:
    """End this process's connection to Ray, which may not end while the control service is away."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    try:
        async with asyncio.timeout(_DISCONNECT_PATIENCE):
            await off_loop(ray.shutdown)
    except TimeoutError:
        _log.warning("Ray does not let go: this process ends without its consent")
        # Ray's own clean-up at exit would wait for the same; what is registered last runs first.
        atexit.register(os._exit, 1)


async def _first_answer(client: httpx2.AsyncClient, url: str) -> int:
    while True:
        try:
            # What would submit a job, were it let in; without a body that is no job.
            return (await client.post(url)).status_code
        except httpx2.TransportError:
            await asyncio.sleep(0.1)


def _tail(log: Path) -> str:
    try:
        return log.read_text("utf-8", errors="replace").strip()[-2000:]
    except FileNotFoundError:
        return ""
