"""Starting a node of a cluster and keeping it until it is told to stop or has failed.

The order matters: files and ports first, for nothing must be half started when a setting is wrong;
then the database; then Ray; then the supervision tree; at last the doors. Everything is stopped in
the opposite order, and whatever this process leaves undone, the kernel and the warden do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from actors.supervisor_watch import SupervisorWatch
from cluster.database import prepare_database
from cluster.drain import drain
from cluster.membership import Membership, deployment_failure
from cluster.ray_node import RayNode
from cluster.ready import boot_fingerprint, local_url, wait_until_ready
from cluster.resolve import Claims, plan_ray, resolve
from cluster.settings import Settings, load
from cluster.signals import Stop, run_until_stopped
from secrethub.errors import Unavailable
from secrethub.node import NodeSettings
from secrethub.sensitive import protect_process


def run_server(config_path: Path) -> int:
    """Run a node until it is told to stop.

    Args:
        config_path: ``secrethub.toml``.

    Returns:
        The command's exit code.

    Raises:
        SecretHubError: it could not be started.
    """
    prepare_process()
    settings = load(config_path)

    async def work(stop: Stop) -> int:
        async with AsyncExitStack() as stack:
            node, ray_node = await start_node(settings, stack, stop)
            fingerprint = boot_fingerprint(node)
            if fingerprint is not None and node.tls is not None:
                say(f"while sealed, port {node.tls.port} shows its own certificate, SHA-256 {fingerprint}")
            say(f"ready: node {node.node} ({settings.role}) {door(node)}")
            raise Unavailable(f"Ray has failed: {await ray_node.ended()}")

    return run_until_stopped(work)


async def start_node(
    settings: Settings, stack: AsyncExitStack, stop: Stop, *, dev: bool = False
) -> tuple[NodeSettings, RayNode]:
    """Start everything of a node; ``stack`` ends it.

    Args:
        settings: checked settings.
        stack: gets the end of each part.
        stop: listens to signals.
        dev: mark the node as one of ``secrethub dev``.

    Returns:
        What the node's processes read, and its Ray node.

    Raises:
        SecretHubError: something could not be started; what was, ends with ``stack``.
    """
    claims = Claims()
    stack.callback(claims.release)
    node = resolve(settings, claims, dev=dev)
    plan = plan_ray(settings, node, claims)
    await prepare_database(node.database_url, dev=dev)
    ray_node = RayNode(plan, Path(node.run_dir), keep_open=claims.descriptors)
    stack.push_async_callback(ray_node.stop)
    await ray_node.start()
    ray_node.connect()
    # Ray has taken the signals for itself.
    stop.listen()
    stack.push_async_callback(drain, ray_node)
    await _start_actors(node.node, head=plan.head)
    watch = asyncio.create_task(SupervisorWatch(node.node).run(), name="supervisors")
    stack.callback(watch.cancel)
    if plan.head and node.serve is not None:
        membership = Membership(node.serve)
        await membership.start()
        members = asyncio.create_task(membership.run(), name="membership")
        stack.callback(members.cancel)
    # Only the head has the ingress.
    await wait_until_ready(node, deployment_failure, ingress=plan.head)
    return node, ray_node


def prepare_process() -> None:
    """Make this process fit to start others that hold keys."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for talkative in ("alembic", "httpx2", "uvicorn"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    os.umask(0o077)
    protect_process()


def say(line: str) -> None:
    """Tell the operator, at once: somebody may be waiting for the line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def door(node: NodeSettings) -> str:
    """Return the URL of the node's first door, as seen from this machine."""
    return local_url(node.http) if node.http is not None else local_url(node.tls, "https")


async def _start_actors(name: str, *, head: bool) -> None:
    from actors.remote import start_node as start_node_branch
    from actors.remote import start_tree

    if head:
        await start_tree()
    await start_node_branch(name)
