"""Leaving in good order: requests in flight end, agents move on, the ledger's streams are closed."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from actors.handles.remote import off_loop
from cluster.membership import APPLICATION
from cluster.ray_node import RayNode
from cluster.ray_plan import LABEL

_log = logging.getLogger(__name__)

_PATIENCE = 20.0
"""Seconds; replicas have ten to end what they are doing."""
_ANSWER_PATIENCE = 3.0
"""Seconds for the control service to show that it is there."""
_LOOK_SECONDS = 0.2


async def drain(ray_node: RayNode) -> None:
    """Stop this node's replicas; elsewhere the application goes on.

    A drain that fails or takes too long is given up: whatever it was for, the node is stopping.
    """
    ray_id = ray_node.ray_id
    if not ray_node.running:
        return
    try:
        async with asyncio.timeout(_ANSWER_PATIENCE):
            last = await off_loop(partial(_is_last_node, ray_id))
    except Exception as exc:  # noqa: BLE001 - Ray raises what it likes while its head is away
        _log.warning(
            "Ray's control service does not answer (%s): stopping without a drain", type(exc).__name__
        )
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            if last:
                await off_loop(_delete_application)
            else:
                await off_loop(partial(_ask_cluster, ray_id))
                while await off_loop(partial(_has_replicas, ray_id)):  # noqa: ASYNC110 - others' processes
                    await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        _log.warning("draining took more than %.0f s: stopping all the same", _PATIENCE)
    except Exception as exc:  # noqa: BLE001 - likewise
        _log.warning("could not drain: %s", type(exc).__name__)


def _is_last_node(ray_id: str) -> bool:
    import ray

    return not any(
        node["Alive"] and LABEL in node["Labels"] and node["NodeID"] != ray_id for node in ray.nodes()
    )


def _delete_application() -> None:
    from ray import serve

    serve.delete(APPLICATION)


def _ask_cluster(ray_id: str) -> None:
    """Tell Ray that this node leaves: Serve stops its replicas, and nothing new is placed here."""
    from ray._private.worker import global_worker
    from ray.core.generated import autoscaler_pb2

    accepted, reason = global_worker.gcs_client.drain_node(
        ray_id,
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "secrethub stops",
        int((time.time() + _PATIENCE) * 1000),
    )
    if not accepted:
        _log.warning("Ray does not drain this node: %s", reason)


def _has_replicas(ray_id: str) -> bool:
    from ray._private.state import actors

    alive = actors(actor_state_name="ALIVE").values()
    return any(
        actor["Address"]["NodeID"] == ray_id and actor["ActorClassName"].startswith("ServeReplica:")
        for actor in alive
    )
