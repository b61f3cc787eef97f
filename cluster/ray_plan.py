"""What the Ray processes of one node are started with.

The plan travels to the process that starts Ray in a 0600 file below the node's run directory; the
environment is made here, from nothing, so that what happens to be set where SecretHub was started
neither changes Ray nor reaches a process that holds keys.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import msgspec

from cluster.ray_worker import HOST_VARIABLE
from secrethub import node

_SETUP_HOOK = "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
"""Ray's own name for the function that each worker calls first."""
_LAUNCHER_PATIENCE = 120
"""Seconds until the launcher starts a machine anew that Ray does not hear of. By then a node that is starting
has waited for the end of its earlier life and for its Ray (``cluster.resolve``, ``cluster.ray_node``)."""
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


class RayTls(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates of Ray's own connections; paths."""

    certificate_file: str
    key_file: str
    ca_file: str


class RayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One Ray node.

    Attributes:
        node: SecretHub's name of the node; also Ray's, and the value of the label below.
        head: whether it runs the cluster's control service (GCS).
        host: address of this node; 127.0.0.1 keeps every one of Ray's ports on loopback.
        gcs: ``host:port`` of the control service.
        temp_dir: sockets and logs.
        token_file: Ray's token.
        node_file: what SecretHub's processes on this node read.
        dashboard_port: on loopback; the head's alone.
        agent_port: of the dashboard agent.
        dashboard_metrics_port: the head's alone.
        launcher_config: the cluster launcher's file; the head then starts workers itself.
        launcher_dir: folder where that process keeps which machines it has started; it must outlive the
            head, for a machine that is not in there is started again, running or not.
        launcher_metrics_port: of the process that does.
        storage: folder where the head's control service keeps its state, so that a head that was
            killed takes over where it was; None keeps it in memory, or in Redis.
        redis_address: keeps it instead, so that the next head may be on another machine.
        reconnect_timeout: seconds to live without the control service.
    """

    node: str
    head: bool
    host: str
    gcs: str
    temp_dir: str
    token_file: str
    node_file: str
    dashboard_port: int
    agent_port: int
    dashboard_metrics_port: int
    launcher_config: str | None = None
    launcher_dir: str | None = None
    launcher_metrics_port: int = 0
    storage: str | None = None
    redis_address: str | None = None
    redis_username: str | None = None
    redis_password: str | None = None
    tls: RayTls | None = None
    reconnect_timeout: int = 600

    def __repr__(self) -> str:
        return f"RayPlan(node={self.node!r}, head={self.head})"


LABEL = "secrethub-node"
"""Label of a Ray node with SecretHub's name for it."""


def environment(plan: RayPlan) -> dict[str, str]:
    """Return the whole environment of the node's Ray processes."""
    own = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    own |= ray_variables(plan)
    own |= {
        node.VARIABLE: plan.node_file,
        # Where Python's multiprocessing leaves folders; this one is emptied at every start.
        "TMPDIR": str(Path(plan.node_file).parent),
        HOST_VARIABLE: plan.host,
        _SETUP_HOOK: "cluster.ray_worker.prepare",
        "DASHBOARD_METRIC_PORT": str(plan.dashboard_metrics_port),
        "AUTOSCALER_METRIC_PORT": str(plan.launcher_metrics_port),
    }
    root = Path(__file__).resolve().parents[1]
    if str(root) not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        own["PYTHONPATH"] = str(root)
    if plan.launcher_dir is not None:
        own |= {
            # Where Ray's launcher keeps its state, and nothing else here does.
            "RAY_TMPDIR": plan.launcher_dir,
            "AUTOSCALER_HEARTBEAT_TIMEOUT_S": str(_LAUNCHER_PATIENCE),
        }
    if plan.storage is not None:
        own |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": plan.storage}
    if plan.redis_address is not None:
        own["RAY_REDIS_ADDRESS"] = plan.redis_address
        # Not Ray's default, which another Ray cluster on the same Redis would have too.
        own["RAY_external_storage_namespace"] = "secrethub"
    return own


def ray_variables(plan: RayPlan) -> dict[str, str]:
    """Return the variables that every process which speaks to Ray needs, this one included."""
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": plan.token_file,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(plan.reconnect_timeout),
        "RAY_DEDUP_LOGS": "0",
        # Idle workers in reserve would only cost memory: what runs here is started once and stays.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        # Ray is made for batch work and lets everything else on the machine go first (15); who waits for a
        # secret waits for the gateway, and PostgreSQL beside it would starve it under load.
        "RAY_worker_niceness": "0",
        # The node is drained before it is told to stop (cluster.drain).
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_USE_TLS": "0",
    }
    if "127.0.0.1" in (plan.host, plan.gcs.rpartition(":")[0]):
        # Ray replaces loopback addresses by the machine's outward one unless told that it has none.
        variables["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if plan.tls is not None:
        variables |= {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": plan.tls.certificate_file,
            "RAY_TLS_SERVER_KEY": plan.tls.key_file,
            "RAY_TLS_CA_CERT": plan.tls.ca_file,
        }
    return variables


def adopt(plan: RayPlan) -> None:
    """Give this process Ray's variables and no others of Ray's. Before ``ray`` is imported.

    Raises:
        RuntimeError: it is imported already and has read its environment.
    """
    if "ray" in sys.modules:
        raise RuntimeError("ray was imported before its environment was set")
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ.update(ray_variables(plan))
