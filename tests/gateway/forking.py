"""Processes that are forked by one that has imported what they need, so they cost no more than their start.

It has imported the server, and the libraries of the command line but nothing of the command line's own: a
command that lacks an import fails here as it does in a shell.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(
    ["tests.gateway.second_process", "tests.gateway.whole_server", "click", "yaml", __name__]
)
_STREAMS = ("in", "out", "err")
_LONGEST = 60
"""Seconds; a command that takes longer is killed."""


def run_command(
    words: Sequence[str], environment: Mapping[str, str], stdin: str, place: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command.

    Args:
        words: without ``secrethub``.
        environment: its whole environment.
        stdin: what it can read.
        place: its working directory; None for the one of this process when forking began.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in _STREAMS]
        for file, text in zip(files, (stdin, "", ""), strict=True):
            file.write_text(text, "utf-8")
        child = FORKING.Process(target=_command, args=(words, environment, folder, place))
        child.start()
        child.join(_LONGEST)
        if child.exitcode is None:
            child.kill()
            child.join()
        assert child.exitcode is not None
        out, err = (file.read_text("utf-8") for file in files[1:])
        return subprocess.CompletedProcess(words, child.exitcode, out, err)


def _command(words: Sequence[str], environment: Mapping[str, str], folder: str, place: Path | None) -> None:
    """Be ``secrethub`` with these words; ``in``, ``out`` and ``err`` in ``folder`` are its streams."""
    os.environ.clear()
    os.environ.update(environment)
    if place is not None:
        os.chdir(place)
    for number, name in enumerate(_STREAMS):
        stream = os.open(Path(folder) / name, os.O_RDWR)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.argv = ["secrethub", *words]
    from cluster.cli.main import main

    main()
