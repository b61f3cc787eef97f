"""Starts the Ray processes of one node and stays as long as they live; run with ``-m``.

This is what ``ray start --block`` does, with three differences that its command line does not offer:
Ray Client stays closed, a node on loopback keeps every port there, and the password of the control
service's Redis is in no process's arguments.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from ray._private import services
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._private.node import Node
from ray._private.parameter import RayParams

from cluster.ray_plan import LABEL, RayPlan

_VITAL = ("gcs_server", "raylet")
"""Without these the node is none; the others (dashboard, monitor) it can do without."""
_OBJECT_STORE = 80 * 1024 * 1024
"""Bytes; Ray's minimum. Nothing large ever passes through it."""


def main(plan_file: str, ready_file: str) -> int:
    """Start the node, write its Ray node id to ``ready_file``, and return when it has failed."""
    plan = msgspec.json.decode(Path(plan_file).read_bytes(), type=RayPlan)
    _keep_out_of_arguments(plan)
    ensure_token_if_auth_enabled(None, create_token_if_missing=False)
    node: Any = Node(_parameters(plan), head=plan.head, shutdown_at_exit=True, spawn_reaper=True)
    Path(ready_file).write_text(node.node_id, "ascii")
    reported: set[str] = set()
    while True:
        dead = {kind for kind, _ in node.dead_processes()}
        for kind in sorted(dead - reported):
            sys.stderr.write(f"the Ray process {kind} has ended\n")
        if dead.intersection(_VITAL):
            return 1
        reported |= dead
        time.sleep(0.2)


def _parameters(plan: RayPlan) -> RayParams:
    common: dict[str, Any] = {
        "node_ip_address": plan.host,
        "node_name": plan.node,
        "labels": {LABEL: plan.node},
        "temp_dir": plan.temp_dir,
        "min_worker_port": 0,
        "max_worker_port": 0,
        "object_store_memory": _OBJECT_STORE,
        "dashboard_agent_listen_port": plan.agent_port,
        "include_log_monitor": False,
        "redis_username": plan.redis_username or "",
        "redis_password": plan.redis_password or "",
    }
    if not plan.head:
        return RayParams(**common, gcs_address=plan.gcs)
    common |= {
        "gcs_server_port": int(plan.gcs.rpartition(":")[2]),
        "include_dashboard": True,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": plan.dashboard_port,
        "no_monitor": plan.launcher_config is None,
        "autoscaling_config": plan.launcher_config,
    }
    return RayParams(**common)


def _keep_out_of_arguments(plan: RayPlan) -> None:
    """Hand the Redis password to the control service by its environment, and to nobody else.

    Ray writes it into the arguments of the control service and of every worker, where all users of
    the machine can read it; only the control service speaks to Redis.
    """
    password = plan.redis_password
    if password is None:
        return
    start = services.start_ray_process

    def without_password(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        needed = any(password in part for part in command)
        command = [
            " ".join(word for word in part.split(" ") if password not in word) if password in part else part
            for part in command
        ]
        command = [part for part in command if part]
        if needed and process_type == "gcs_server":
            command.append("--fromenv=redis_password")
            kwargs["env_updates"] = {**(kwargs.get("env_updates") or {}), "FLAGS_redis_password": password}
        return start(command, process_type, *args, **kwargs)

    services.start_ray_process = without_password


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
