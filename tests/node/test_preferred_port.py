"""A port that is wanted but not needed: several installations start at once on one machine."""

from __future__ import annotations

import socket
from pathlib import Path

from cluster.ports import Ports

HOST = "127.0.0.1"


def test_of_two_that_start_at_once_the_second_takes_another(tmp_path: Path) -> None:
    """A port claimed by somebody who does not listen yet, and one that is listened on, are left alone."""
    first, second, third = (Ports(tmp_path / "ports") for _ in range(3))
    try:
        port = first.claim("ray.dashboard_port", HOST, 0)
        assert second.claim("ray.dashboard_port", HOST, port, or_another=True) not in {0, port}
        with socket.create_server((HOST, 0)) as listener:
            taken = listener.getsockname()[1]
            assert third.claim("ray.dashboard_port", HOST, taken, or_another=True) not in {0, taken}
        assert third.claim("ray.dashboard_port", HOST, taken, or_another=True) == taken
    finally:
        for ports in (first, second, third):
            ports.close()
