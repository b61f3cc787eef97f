"""A second serving process whose engines lease out files of a folder: it may die where the folder says."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from secrethub.engines.kinds import engines
from tests.gateway import second_process
from tests.gateway.lease_engine import FolderEngine


def run(ready: Connection, node_file: str, socket: str, place: str) -> None:
    """Be a second process that leases out the files of ``place``."""
    second_process.run(ready, node_file, socket, {**engines(), "folder": FolderEngine(Path(place))})
