"""Nodes that come and go, as the head sees them: one replica of everything on each.

The number of replicas is only ever raised here. A node that is away is expected back, and lowering
the number would make Serve end a replica, perhaps the one that still works. A node that leaves for
good is drained (``cluster.drain``), and the next start of the head counts anew.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from actors.handles.remote import off_loop
from cluster.ray_plan import LABEL
from secrethub.errors import SecretHubError, Unavailable
from secrethub.node import Listener

_LOOK_SECONDS = 1.0
APPLICATION = "secrethub"
"""Name of the Ray Serve application."""
_GATEWAY = "Gateway"

_log = logging.getLogger(__name__)


class Membership:
    """Keeps the application as large as the cluster."""

    def __init__(self, ingress: Listener) -> None:
        """Prepare.

        Args:
            ingress: where Ray Serve's ingress listens.
        """
        self._ingress = ingress
        self._replicas = 0

    async def start(self) -> None:
        """Deploy for the nodes there are, or for as many as a head before this one had served.

        Raises:
            Unavailable: Ray does not take it.
        """
        wanted = await off_loop(lambda: max(_alive_nodes(), _deployed_replicas(), 1))
        await self._deploy(wanted)

    async def run(self) -> None:
        """Follow the cluster's growth until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                nodes = await off_loop(_alive_nodes)
                if nodes > self._replicas:
                    _log.info("the cluster has %d nodes now", nodes)
                    await self._deploy(nodes)
            except Exception as exc:  # noqa: BLE001 - Ray raises what it likes; the next look tries again
                _log.warning("the cluster could not be looked at: %s", type(exc).__name__)

    async def _deploy(self, nodes: int) -> None:
        from serve.deployments import deploy

        try:
            await off_loop(partial(deploy, nodes, host=self._ingress.host, port=self._ingress.port))
        except SecretHubError:
            raise
        except Exception as exc:
            raise Unavailable(f"Ray Serve did not take the application: {type(exc).__name__}") from exc
        self._replicas = nodes


def deployment_failure() -> str | None:
    """Return why the application cannot be started, or None while it still may.

    The application as a whole also counts as failed when a replica that had started was lost, with
    its node perhaps; that is no reason to give up the others.
    """
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    if application is None:
        return None
    for deployment in application.deployments.values():
        if deployment.status == "DEPLOY_FAILED" and deployment.status_trigger == "REPLICA_STARTUP_FAILED":
            return f"Ray Serve could not start SecretHub: {deployment.message}"
    return None


def _alive_nodes() -> int:
    import ray

    try:
        nodes = ray.nodes()
    except ray.exceptions.RayError as exc:
        raise Unavailable("Ray's control service does not answer") from exc
    # By our names: one that was killed and is back counts twice until Ray has noticed its first end.
    return len({node["Labels"][LABEL] for node in nodes if node["Alive"] and LABEL in node["Labels"]})


def _deployed_replicas() -> int:
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    if application is None or _GATEWAY not in application.deployments:
        return 0
    return sum(application.deployments[_GATEWAY].replica_states.values())
