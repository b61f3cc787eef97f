"""What every Ray worker of a node does before anything else.

Ray Serve's replicas open a port for calls between deployments, and open it on every interface of the
machine. Nobody calls replicas of ours that way, so it belongs on the node's own address alone: on
loopback, if that is where the node is. (Ray's token guards it besides.)
"""

from __future__ import annotations

import os
from typing import Any

HOST_VARIABLE = "SECRETHUB_RAY_HOST"
"""Environment variable with the address of the node."""
_EVERY_INTERFACE = "[::]"


def prepare() -> None:
    """Keep ports of this process on the node's address. Ray calls it when a worker starts."""
    from ray._common import tls_utils

    host = os.environ[HOST_VARIABLE]
    bind = tls_utils.add_port_to_grpc_server

    def bind_here(server: Any, address: str) -> int:
        return int(bind(server, address.replace(_EVERY_INTERFACE, f"[{host}]" if ":" in host else host)))

    # Before Serve is imported, which takes the function by its name.
    tls_utils.add_port_to_grpc_server = bind_here
