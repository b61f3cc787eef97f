"""Where a node keeps its witness (``audit/witness.py``): a file outside the database, one a cluster.

It is private and replaced whole. Nothing in it is secret, but nobody else may change it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from secrethub.audit.witness import Witness, file_name, read_witness
from secrethub.errors import Misconfigured


def path_of(folder: Path, cluster_id: str) -> Path:
    """Return where the witness of a cluster is."""
    return folder / file_name(cluster_id)


def load(folder: Path, cluster_id: str) -> Witness | None:
    """Return what is kept of a cluster, or None when nothing is.

    Raises:
        Misconfigured: the file cannot be read.
    """
    path = path_of(folder, cluster_id)
    try:
        return read_witness(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise Misconfigured(f"{path} cannot be read, so a restored database would not be noticed") from exc


def keep(folder: Path, cluster_id: str, witness: Witness) -> None:
    """Put a witness in the place of the former one, durably.

    Raises:
        Misconfigured: the file cannot be written.
    """
    path = path_of(folder, cluster_id)
    draft = path.with_suffix(".new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(witness))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise Misconfigured(f"{path} cannot be written: {exc.strerror}") from exc
