"""The Ray Serve application ``secrethub``: which process classes there are and how many run where.

Serve places one replica of each a node, checks their health, restarts and rolls them. Each replica reads
its node's settings itself; nothing is passed through ``bind()``. Ray is imported when it is used.
"""

from __future__ import annotations

import logging
from typing import Any

from actors.handles import RayHandles
from secrethub.errors import Misconfigured
from secrethub.node import read_node_file
from serve.heap import settle
from serve.wiring import Process

APPLICATION = "secrethub"
VERSION = "1"
"""Replicas are replaced when this changes, and only then: an unchanged application is left alone."""

_OPTIONS: dict[str, Any] = {
    "max_replicas_per_node": 1,
    "max_ongoing_requests": 1000,
    # The replicas share their node with the rest of SecretHub; Ray's CPU accounting has no say here.
    "ray_actor_options": {"num_cpus": 0},
    "health_check_period_s": 2,
    "health_check_timeout_s": 15,
    "graceful_shutdown_timeout_s": 10,
    "graceful_shutdown_wait_loop_s": 1,
}

_log = logging.getLogger(__name__)


class GatewayReplica:
    """REST on this node's 4000 and 4443, and behind Serve's ingress on 8000."""

    def __init__(self, _agents: object = None) -> None:
        """Wire this process.

        Args:
            _agents: ties the agents' deployment into the same application; not called.
        """
        settings = read_node_file()
        self._process = Process(settings, RayHandles(settings.node), ("gateway",), "gateway")

    def __repr__(self) -> str:
        return f"GatewayReplica({self._process.core!r})"

    async def __serve_build_asgi_app__(self) -> Any:
        """Open the listeners and return the application of the ingress' door."""
        await self._process.start()
        settle()
        return self._process.application("serve")

    async def check_health(self) -> None:
        """Raise when this process should be replaced; a database that is away is no reason."""
        self._process.check_health()

    async def __del__(self) -> None:
        await self._process.stop()


class AgentReplica:
    """Agents on this node's 4665."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        settings = read_node_file()
        self._process = Process(settings, RayHandles(settings.node), ("agents",), "agent-gateway")
        await self._process.start()
        settle()

    def __repr__(self) -> str:
        return f"AgentReplica({self._process.core!r})"

    async def check_health(self) -> None:
        """Raise when this process should be replaced."""
        self._process.check_health()

    async def __call__(self) -> None:
        """Nothing comes this way: agents connect to the process itself."""

    async def __del__(self) -> None:
        await self._process.stop()


def deploy(nodes: int, *, host: str, port: int) -> None:
    """Start the application, or give it as many replicas as there are nodes, and return at once.

    Args:
        nodes: nodes of the cluster.
        host: where Serve's ingress listens; loopback unless the operator said otherwise.
        port: its port.

    Raises:
        Misconfigured: Serve runs already with another ingress.
    """
    from ray import serve
    from ray.serve.api import RunTarget, run_many
    from ray.serve.config import HTTPOptions, ProxyLocation

    if nodes < 1:
        raise Misconfigured("a cluster has at least one node")
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host=host, port=port))
    place = serve.deployment(num_replicas=nodes, **_OPTIONS)
    agents = place(AgentReplica).options(name="AgentGateway")
    gateway = place(serve.ingress()(GatewayReplica)).options(name="Gateway")
    for deployment in (agents, gateway):
        # Ray 2.60 took the public option away and makes up a new version at every deployment, which
        # restarts each replica although nothing but their number changed.
        deployment._version = VERSION  # noqa: SLF001
    _log.info("deploying %s on %d nodes", APPLICATION, nodes)
    # Not waited for: a node may be on its way down or not back yet, and what cannot be placed there must
    # neither hold up nor bring down the others.
    target = RunTarget(target=gateway.bind(agents.bind()), name=APPLICATION, route_prefix="/")
    run_many([target], wait_for_applications_running=False)
