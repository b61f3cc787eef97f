"""Claiming ports: never two nodes on one, never a forgotten listener beside us."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.ports import Ports
from secrethub.errors import Conflict, Misconfigured

HOST = "127.0.0.1"


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    """Claims in a folder of this test."""
    made = Ports(tmp_path / "ports")
    yield made
    made.close()


def shared_listener(port: int) -> socket.socket:
    """A listener as a gateway replica opens it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((HOST, port))
    made.listen()
    return made


def test_replicas_can_share_a_claimed_port(ports: Ports) -> None:
    """Several listeners with SO_REUSEPORT open on a port that is claimed for sharing."""
    port = ports.claim("http.port", HOST, 0, shared=True)
    with shared_listener(port), shared_listener(port), socket.create_connection((HOST, port)):
        pass


def test_a_port_is_claimed_once(ports: Ports, tmp_path: Path) -> None:
    """A second node on this machine is refused the port, and told the setting."""
    port = ports.claim("tls.port", HOST, 0, shared=True)
    with pytest.raises(Conflict, match=r"tls\.port"):
        Ports(tmp_path / "ports").claim("tls.port", HOST, port, shared=True)


def test_a_forgotten_listener_is_noticed(ports: Ports) -> None:
    """A listener that would share its port with us silently keeps us from using it."""
    with shared_listener(0) as forgotten, pytest.raises(Conflict, match="in use"):
        ports.claim("http.port", HOST, forgotten.getsockname()[1], shared=True)


def test_claims_end_with_their_last_holder(ports: Ports, tmp_path: Path) -> None:
    """A claim lasts while any process has its descriptor, and no longer."""
    port = ports.claim("ray.port", HOST, 0)
    elsewhere = [os.dup(descriptor) for descriptor in ports.descriptors]
    ports.close()
    other = Ports(tmp_path / "ports")
    with pytest.raises(Conflict):
        other.claim("ray.port", HOST, port)
    for descriptor in elsewhere:
        os.close(descriptor)
    assert other.claim("ray.port", HOST, port) == port
    other.close()


def test_nothing_stays_of_claims_that_are_over(ports: Ports, tmp_path: Path) -> None:
    """Lock files go with their claims, those of killed processes with the next claim."""
    folder = tmp_path / "ports"
    held = ports.claim("http.port", HOST, 0)
    (stale := folder / "1-1").touch()
    other = Ports(folder)
    port = other.claim("tls.port", HOST, 0)
    assert not stale.exists()
    other.close()
    assert [path.name.rpartition("-")[2] for path in folder.iterdir()] == [str(held)]
    ports.close()
    assert not folder.exists()
    assert ports.claim("tls.port", HOST, port) == port


def test_a_lock_on_a_removed_file_is_none(tmp_path: Path) -> None:
    """Whoever waited for a file that was removed meanwhile locks the new one: two never hold one port."""
    for _ in range(200):
        first, second = Ports(tmp_path / "ports"), Ports(tmp_path / "ports")
        port = first.claim("http.port", HOST, 0)
        ending = threading.Thread(target=first.close)
        ending.start()
        claimed = False
        while not claimed:
            with contextlib.suppress(Conflict):
                claimed = second.claim("http.port", HOST, port) == port
        ending.join()
        with pytest.raises(Conflict):
            Ports(tmp_path / "ports").claim("http.port", HOST, port)
        second.close()


def test_a_folder_that_another_user_made_first_is_left_alone(tmp_path: Path) -> None:
    """Where the usual place is not ours alone, the next one is used."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken").chmod(0o777)
    ports = Ports(tmp_path / "taken", tmp_path / "ours")
    port = ports.claim("http.port", HOST, 0)
    assert [path.name.rpartition("-")[2] for path in (tmp_path / "ours").iterdir()] == [str(port)]
    ports.close()


def test_an_address_of_another_machine_is_refused(ports: Ports) -> None:
    """An address that is not this machine's is a wrong setting, not a port in use."""
    with pytest.raises(Misconfigured, match=r"tls\.port"):
        ports.claim("tls.port", "192.0.2.1", 0)


def test_the_lock_folder_must_be_ours_alone(tmp_path: Path) -> None:
    """A folder of locks that others could write to is refused."""
    folder = tmp_path / "ports"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(Misconfigured):
        Ports(folder).claim("http.port", HOST, 0)
