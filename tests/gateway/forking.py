"""Processes that are forked by one that has imported what they need, so they cost no more than their start.

It has imported the server, and the libraries of the command line but nothing of the command line's own: a
command that lacks an import fails here as it does in a shell.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tests.gateway.second_process", "click", "yaml", __name__])


def command(words: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    """Be ``secrethub`` with these words; ``in``, ``out`` and ``err`` in ``folder`` are its streams."""
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(("in", "out", "err")):
        place = os.open(Path(folder) / name, os.O_RDWR)
        os.dup2(place, number)
        os.close(place)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.argv = ["secrethub", *words]
    from cluster.cli.main import main

    main()
